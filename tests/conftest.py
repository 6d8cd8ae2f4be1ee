import os
from pathlib import Path
import jax, pytest
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
@pytest.fixture(scope="session")
def shared_data():
    return Path("/work/shared/data")
