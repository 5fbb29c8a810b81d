"""The node's executor: what runs where, and what an image costs beside threads that compute in Python."""

import threading
import time
import weakref
from collections import Counter
from concurrent import futures

import pytest
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from std_msgs.msg import Int32
from std_srvs.srv import Trigger

from decaf_ros.ros.executor import CameraFirstExecutor

_PATIENCE_SECONDS = 30.0


@pytest.fixture
def node(ros):
    node = rclpy.create_node("executor_test")
    yield node
    node.destroy_node()


@pytest.fixture
def executor(node):
    executor = CameraFirstExecutor(threads=2)
    executor.add_node(node)
    yield executor
    executor.shutdown()


def _spin_until(executor, condition):
    turns, deadline = 0, time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        executor.spin_once(timeout_sec=0.1)
        turns += 1
    return turns


@pytest.fixture
def busy_interpreter():
    """A thread that holds the interpreter's lock whenever it can, as a model does between its operators."""
    stop = threading.Event()

    def compute():
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_a_message_takes_few_turns_of_the_loop_beside_a_busy_thread(node, executor, busy_interpreter):
    heard = []
    node.create_subscription(Int32, "~/number", lambda message: heard.append(message.data), 10)
    publisher = node.create_publisher(Int32, "~/number", 10)
    _spin_until(executor, lambda: publisher.get_subscription_count())
    turns = 0
    for number in range(20):
        publisher.publish(Int32(data=number))
        turns += _spin_until(executor, lambda number=number: len(heard) > number)
    assert heard == list(range(20))
    assert turns <= 100  # rclpy's MultiThreadedExecutor takes hundreds


def test_images_and_timers_go_on_while_services_block_every_thread_of_the_pool(node, executor):
    blocked, release, heard, ticks = [], threading.Event(), [], []

    def block(request, response):
        blocked.append(threading.current_thread())
        release.wait(_PATIENCE_SECONDS)
        return response

    node.create_service(Trigger, "~/block", block, callback_group=ReentrantCallbackGroup())
    client = node.create_client(Trigger, "~/block")
    node.create_timer(0.01, lambda: ticks.append(threading.current_thread()))
    node.create_subscription(Int32, "~/number", lambda _: heard.append(threading.current_thread()), 10)
    publisher = node.create_publisher(Int32, "~/number", 10)
    _spin_until(executor, lambda: publisher.get_subscription_count() and client.service_is_ready())
    answers = [client.call_async(Trigger.Request()) for _ in range(3)]  # one more than there are threads
    _spin_until(executor, lambda: len(blocked) == 2)
    ticks.clear()
    publisher.publish(Int32())
    _spin_until(executor, lambda: heard and ticks)
    assert set(heard) == {threading.current_thread()}
    assert len({threading.current_thread(), *blocked, *ticks}) == 4
    release.set()
    _spin_until(executor, lambda: all(answer.done() for answer in answers))
    assert len(blocked) == 3, "each request is handled once"


def test_what_waits_for_a_thread_is_handed_over_once(executor, monkeypatch):
    handed, begun, release = Counter(), [], threading.Event()
    submit = futures.ThreadPoolExecutor.submit

    def count(pool, work):
        handed[work] += 1
        return submit(pool, work)

    monkeypatch.setattr(futures.ThreadPoolExecutor, "submit", count)
    tasks = [executor.create_task(lambda: (begun.append(1), release.wait(_PATIENCE_SECONDS))) for _ in range(3)]
    _spin_until(executor, lambda: len(begun) == 2)
    for _ in range(20):
        executor.spin_once(timeout_sec=0)
    release.set()
    _spin_until(executor, lambda: all(task.done() for task in tasks))
    assert list(handed.values()) == [1, 1, 1]


def test_a_timer_that_waits_does_not_hold_up_images(node, executor):
    waiting, release, heard = threading.Event(), threading.Event(), []
    node.create_timer(0.01, lambda: (waiting.set(), release.wait(_PATIENCE_SECONDS)))
    node.create_subscription(
        Int32, "~/number", lambda message: heard.append(message.data), 10, callback_group=MutuallyExclusiveCallbackGroup()
    )
    publisher = node.create_publisher(Int32, "~/number", 10)
    _spin_until(executor, lambda: publisher.get_subscription_count() and waiting.is_set())
    publisher.publish(Int32(data=5))
    _spin_until(executor, lambda: heard)
    release.set()
    assert heard == [5]


@pytest.mark.parametrize("kind", ["subscription", "task"])
def test_the_loop_raises_what_a_callback_raised_and_goes_on(node, executor, kind):
    def fail(*_):
        time.sleep(0.02)  # the loop is elsewhere when it fails
        raise ValueError("the callback's own")

    warm = [executor.create_task(lambda: time.sleep(0.05)) for _ in range(2)]
    _spin_until(executor, lambda: all(task.done() for task in warm))
    node.create_timer(0.01, lambda: None)
    if kind == "subscription":
        node.create_subscription(Int32, "~/number", fail, 10)
        publisher = node.create_publisher(Int32, "~/number", 10)
        _spin_until(executor, lambda: publisher.get_subscription_count())
        publisher.publish(Int32())
    else:
        executor.create_task(fail)
    with pytest.raises(ValueError, match="the callback's own"):
        _spin_until(executor, lambda: False)
    done = executor.create_task(lambda: 7)
    _spin_until(executor, done.done)
    assert done.result() == 7


def test_every_error_is_raised_and_nothing_of_a_callback_is_kept(node, executor):
    def fail(number):
        raise ValueError(str(number))

    tasks = [executor.create_task(fail, number) for number in range(5)]
    raised = []
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while len(raised) < len(tasks) and time.monotonic() < deadline:
        try:
            executor.spin_once(timeout_sec=0.01)
        except ValueError as error:
            raised.append(int(str(error)))
    assert sorted(raised) == [0, 1, 2, 3, 4]
    task = executor.create_task(time.sleep, 0)
    freed = weakref.ref(task)
    _spin_until(executor, task.done)
    del task, tasks
    executor.spin_once(timeout_sec=0.01)
    executor.spin_once(timeout_sec=0.01)
    assert freed() is None


def test_shutdown_waits_for_what_runs(node, executor):
    begun, ended = threading.Event(), threading.Event()
    executor.create_task(lambda: (begun.set(), time.sleep(0.3), ended.set()))
    _spin_until(executor, begun.is_set)
    executor.shutdown()
    assert ended.is_set()


def test_a_coroutine_waits_for_a_future_without_a_thread(node, executor):
    awaited = rclpy.task.Future(executor=executor)

    async def wait():
        return await awaited

    tasks = [executor.create_task(wait) for _ in range(5)]  # more than there are threads
    between = executor.create_task(lambda: "meanwhile")
    _spin_until(executor, between.done)
    assert not any(task.done() for task in tasks)
    awaited.set_result(3)
    _spin_until(executor, lambda: all(task.done() for task in tasks))
    assert [task.result() for task in tasks] == [3] * 5
