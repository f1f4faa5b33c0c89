import pytest

pytest.register_assert_rewrite("profiles_made_up")
