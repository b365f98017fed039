"""The control queue has its plain name once, and a fresh one after each reconnect."""

from dispatch.worker.patches.control_queue import FreshMailbox, WorkerControl


def mailbox():
    return FreshMailbox("celery", type="fanout")


def test_the_first_queue_has_the_plain_name():
    assert mailbox().get_queue("w@one").name == "w@one.celery.pidbox"


def test_each_further_queue_has_a_name_of_its_own():
    box = mailbox()
    names = [box.get_queue("w@one").name for _ in range(4)]

    assert len(set(names)) == 4
    assert all(name.startswith("w@one.") and name.endswith(".celery.pidbox") for name in names)


def test_the_control_of_a_worker_uses_it():
    assert WorkerControl.Mailbox is FreshMailbox
