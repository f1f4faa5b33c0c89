from __future__ import annotations

import pytest

pytest.register_assert_rewrite("sim_worlds", "random_workloads")
