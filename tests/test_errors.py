"""Errors that are caused by user input, where they are more than a message."""

import pickle

from cyclemlp.errors import MissingExtraError


def test_a_missing_extra_can_be_sent_from_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(MissingExtraError("onnx", "export")))
    assert str(error) == "this needs onnx, which is not installed: pip install 'cyclemlp[export]'"
