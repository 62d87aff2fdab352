"""Kill training runs at random moments, and compare what they resume to with a run that nothing disturbs."""
