"""A cluster of three masters keeps the one contract."""

import pytest

from fastrdb.cache.cluster import ClusterStore
from fastrdb.testing.stores import StoreContract
from tests.servers.cluster import Cluster


@pytest.fixture(scope="module")
def whole_cluster(cluster: Cluster) -> Cluster:
    """The run's cluster, whatever was done to it before; keys are random, so that the checks may share it."""
    cluster.clean()
    return cluster


@pytest.mark.parametrize("check", StoreContract.checks())
async def test_cluster_store(whole_cluster: Cluster, check: str) -> None:
    """A cluster keeps the contract."""
    await StoreContract(ClusterStore.factory_from_url(whole_cluster.url, timeout_s=10)).run(check)
