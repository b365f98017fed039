"""For the tests of programs that use the client: the API in memory, with its errors, and tasks that end as the test decides.

::

    fake = FakeDispatch()
    fake.on("robot.clean", result={"areas": 2})
    fake.on("http.request", error="upstream-rejected")
    with fake.client() as dispatch:
        assert dispatch.wait(dispatch.submit("robot.clean", {"robot": "R-1"})).succeeded
"""

from robot_dispatch_client.testing.fake import FakeDispatch
from robot_dispatch_client.testing.records import FakeTask

__all__ = ["FakeDispatch", "FakeTask"]
