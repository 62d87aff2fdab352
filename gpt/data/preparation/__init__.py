"""Texts to a folder of tokens: cut files into units, read and encode them in several processes, and write them."""

from gpt.data.preparation.jobs import cut_into_jobs, texts
from gpt.data.preparation.run import Prepared, prepare
from gpt.data.preparation.units import Job, encode_job

__all__ = ["Job", "Prepared", "cut_into_jobs", "encode_job", "prepare", "texts"]
