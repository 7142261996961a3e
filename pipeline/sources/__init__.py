"""Where raw documents come from: files of any format, local or remote, cut into tasks."""

from pipeline.sources.inputs import Input, input_hashes, list_inputs, plan_tasks
from pipeline.sources.read import RawDocument, read_documents

__all__ = ["Input", "RawDocument", "input_hashes", "list_inputs", "plan_tasks", "read_documents"]
