from tests.end_to_end.conftest import corpus

__all__ = ["corpus"]
