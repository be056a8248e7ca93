import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Threads that wait for a busy core cost these small networks more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
