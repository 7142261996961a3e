"""Raw documents from files of any format, local or remote, cut into tasks; and the records of an archive."""

from pipeline.read.archives import Record, read_records
from pipeline.read.inputs import Input, input_hashes, list_inputs, plan_tasks
from pipeline.read.sources import RawDocument, read_documents

__all__ = [
    "Input",
    "RawDocument",
    "Record",
    "input_hashes",
    "list_inputs",
    "plan_tasks",
    "read_documents",
    "read_records",
]
