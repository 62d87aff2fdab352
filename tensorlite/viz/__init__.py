"""Pictures of graphs and of their backward passes."""
