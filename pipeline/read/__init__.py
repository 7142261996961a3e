"""Raw documents from files of any format, local or remote, cut into tasks; and the records of an archive."""

from pipeline.read.archives import RawDocument, read_records
from pipeline.read.inputs import Input, input_hashes, list_inputs, plan_tasks
from pipeline.read.sources import read_documents

__all__ = [
    "Input", "RawDocument", "input_hashes", "list_inputs", "plan_tasks", "read_documents", "read_records",
]  # fmt: skip
