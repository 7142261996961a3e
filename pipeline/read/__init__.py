"""Where raw documents come from: files of any format, local or remote, cut into tasks."""

from pipeline.read.inputs import Input, input_hashes, list_inputs, plan_tasks
from pipeline.read.sources import RawDocument, read_documents

__all__ = ["Input", "RawDocument", "input_hashes", "list_inputs", "plan_tasks", "read_documents"]
