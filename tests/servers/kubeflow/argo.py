"""The workflow of a run: the nodes that Argo makes of a package, and how Kubeflow's API shows them.

A component of a package becomes a driver's pod and a task; a task is a node that retries, with its one attempt below
it, `NAME(0)`; the pod that does the work is `executor(0)` below that. The API shows neither a node's id nor its place
in the tree: only the ids of the nodes below it, as `child_tasks`. An id is the workflow's name and the hash of the
node's name. A step that fails isn't tried again: the stock controller retries errors of Kubernetes only.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_CONDITION = re.compile(r"\['pipelinechannel--(?:decide|catalogue)-Output'\] == '(\w+)'")
DONE = ("SUCCEEDED", "SKIPPED")
OMITTED = ""  # the state of a node that waited for one that failed: the API shows none
LATER = None  # the state of a task that has not begun
NOT_ENDED = "0001-01-01T00:00:00Z"  # the time of an end that has not come, as Go writes one


def node_id(workflow: str, name: str) -> str:
    """The id that Argo gives to a node: the hash (32 bits of FNV-1a) of its name, after the workflow's."""
    if name == workflow:
        return name
    value = 0x811C9DC5
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{workflow}-{value}"


@dataclass
class Node:
    """A node of a workflow."""

    name: str
    template: str
    started: str
    ended: str = ""
    states: list[tuple[str, str]] = field(default_factory=list)  # (time, state), earlier lives included
    children: list[str] = field(default_factory=list)  # names

    @property
    def state(self) -> str:
        """Its state now."""
        return self.states[-1][1]

    @property
    def label(self) -> str:
        """Its name in the tree, without its place."""
        *_, before, last = ["", *self.name.split(".")]
        return f"{before}.{last}" if last.startswith("onExit") else last


@dataclass
class Workflow:
    """A workflow that a controller looks at again and again."""

    run: str
    name: str
    spec: dict[str, Any]
    verdict: str
    fails_at: str
    now: Callable[[], str]
    nodes: dict[str, Node] = field(default_factory=dict)
    stopping: bool = False

    @property
    def state(self) -> str:
        """The state of the whole."""
        return self.nodes[self.name].state if self.name in self.nodes else "PENDING"

    def reconcile(self) -> None:
        """What the controller does at a look: end what ran, begin what can."""
        entry = f"{self.name}(0)"
        for node in list(self.nodes.values()):
            over = node.state == "RUNNING" or (node.state == "PENDING" and self.stopping)
            if over and node.name.endswith(".executor(0)"):
                step = node.name.split(".")[-2].removesuffix("(0)")
                fails = self.stopping or step == self.fails_at.replace("_", "-")
                self._set(node.name, "FAILED" if fails and ".onExit" not in node.name else "SUCCEEDED")
        begun = bool(self.nodes)
        self._open(self.name, "entrypoint", "")
        if self.stopping and not begun:
            self._set(self.name, "FAILED")
            return
        self._open(entry, "entrypoint", self.name)
        self._driver(f"{entry}.root", entry)
        state = self._attempt(f"{entry}.root", "root", f"{entry}.root-driver(0)", self._root)
        self._set(entry, state)
        self._set(self.name, state)

    def retry(self) -> None:
        """Begin what failed or waited for it once more; what has ended well stays."""
        for node in self.nodes.values():
            if node.state == "FAILED":
                pod = node.template.endswith("impl") and node.name.endswith("(0)")
                if pod or not node.name.endswith("(0)"):
                    node.started = self.now()
                node.ended = ""
                node.states.append((self.now(), "PENDING" if pod else "RUNNING"))
        self.fails_at, self.stopping = "", False

    def tasks(self, created: str) -> list[dict[str, Any]]:
        """The nodes as the API shows them."""
        rows = [self._row(node, created) for node in self.nodes.values()]
        return sorted(rows, key=lambda row: row["task_id"])

    def pod(self, id: str) -> Node | None:
        """The node of a pod, by its id or by the pod's name."""
        for node in self.nodes.values():
            if node.name.endswith("(0)") and node.template.endswith(("impl", "driver")):
                own = node_id(self.name, node.name)
                if id in (own, own.replace(self.name, f"{self.name}-{node.template}")):
                    return node
        return None

    def _row(self, node: Node, created: str) -> dict[str, Any]:
        children = [{"pod_name": node_id(self.name, child)} for child in node.children]
        history = [{"update_time": time, **({"state": state} if state else {})} for time, state in node.states]
        return {
            "run_id": self.run,
            "task_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.run}/{node.name}")),
            "display_name": node.label,
            "create_time": created,
            "start_time": node.started,
            "end_time": node.ended or NOT_ENDED,
            **({"state": node.state} if node.state else {}),
            "state_history": history,
            **({"child_tasks": children} if children else {}),
        }

    # the tree

    def _root(self, dag: str) -> str:
        tasks = self.spec["root"]["dag"]["tasks"]
        hooks = {name: task for name, task in tasks.items() if task.get("triggerPolicy", {}).get("strategy")}
        state = self._dag(dag, {name: task for name, task in tasks.items() if name not in hooks})
        for name, hook in hooks.items():
            (upstream,) = hook["dependentTasks"]
            on_exit = f"{dag}.{upstream}.onExit"
            if state == "RUNNING" or (on_exit in self.nodes and self.nodes[on_exit].state in (*DONE, "FAILED")):
                continue  # it runs once in the life of a run
            template = f"exit-hook-root-{name}"
            body = {name: {**hook, "dependentTasks": [], "triggerPolicy": {}}}
            done = self._attempt(
                on_exit, template, f"{dag}.{upstream}", lambda attempt, body=body: self._dag(attempt, body, always=True)
            )
            if done == "RUNNING":
                return done
        return state

    def _dag(self, dag: str, tasks: dict[str, Any], *, always: bool = False) -> str:
        """Run the tasks whose turn it is, and tell the state of the whole."""
        states: dict[str, str | None] = {}
        while len(states) < len(tasks):
            for name, task in tasks.items():
                before = task.get("dependentTasks", ())
                if name in states or not set(before) <= set(states):
                    continue
                upstream = [states[each] for each in before]
                node = self.nodes.get(f"{dag}.{name}")
                stopped = self.stopping and not always and (node is None or node.state == OMITTED)
                if LATER in upstream or "RUNNING" in upstream:
                    states[name] = LATER
                elif stopped or any(state not in DONE for state in upstream):
                    states[name] = self._omit(dag, name, task, tasks)
                else:
                    states[name] = self._task(dag, name, task, tasks)
        if "RUNNING" in states.values():
            return "RUNNING"
        return "FAILED" if any(state not in DONE for state in states.values()) else "SUCCEEDED"

    def _task(self, dag: str, name: str, task: dict[str, Any], tasks: dict[str, Any]) -> str:
        place, component = f"{dag}.{name}", task["componentRef"]["name"]
        definition = self.spec["components"][component]
        self._driver(place, dag, *self._outbound(dag, task, tasks), dag_driver="dag" in definition)
        if "dag" in definition:
            condition = _CONDITION.search(task.get("triggerPolicy", {}).get("condition", ""))
            if condition and condition[1] != self.verdict:
                self._open(place, component, f"{place}-driver(0)", state="SKIPPED")
                self.nodes[place].ended = self.nodes[place].started
                return "SKIPPED"
            inner = definition["dag"]["tasks"]
            return self._attempt(place, component, f"{place}-driver(0)", lambda attempt: self._dag(attempt, inner))
        retried = "retry-" if task.get("retryPolicy") else ""
        return self._attempt(
            place, f"{retried}system-container-executor", f"{place}-driver(0)",
            lambda attempt: self._executor(attempt, f"{retried}system-container-impl"),
        )  # fmt: skip

    def _outbound(self, dag: str, task: dict[str, Any], tasks: dict[str, Any]) -> list[str]:
        """The nodes that a task follows in the tree."""
        places = [f"{dag}.{each}" for each in task.get("dependentTasks", ())]
        return [f"{place}(0)" if f"{place}(0)" in self.nodes else place for place in places]

    def _attempt(self, place: str, template: str, parent: str, body: Callable[[str], str]) -> str:
        """A node that retries, with its one attempt, which ``body`` runs."""
        if place in self.nodes and self.nodes[place].state in (*DONE, "FAILED"):
            return self.nodes[place].state
        self._open(place, template, parent)
        attempt = self._open(f"{place}(0)", template, place)
        state = body(attempt)
        self._set(attempt, state)
        return self._set(place, state)

    def _executor(self, attempt: str, template: str) -> str:
        executor, pod = f"{attempt}.executor", f"{attempt}.executor(0)"
        if pod not in self.nodes:
            self._open(executor, template, attempt)
            self._open(pod, template, executor, state="PENDING")
            self._set(pod, "RUNNING")
        elif self.nodes[pod].state == "PENDING":
            self._set(pod, "RUNNING")
        return self._set(executor, self.nodes[pod].state)

    def _driver(self, place: str, *parents: str, dag_driver: bool = True) -> None:
        """The pod that prepares a task: over before the next look."""
        name, template = f"{place}-driver", "system-dag-driver" if dag_driver else "system-container-driver"
        if name in self.nodes and self.nodes[name].state in DONE:
            return
        for parent in parents[1:] or parents[:1]:
            self._open(name, template, parent)
        self._open(f"{name}(0)", template, name, state="PENDING")
        self._set(f"{name}(0)", "SUCCEEDED")
        self._set(name, "SUCCEEDED")

    def _omit(self, dag: str, name: str, task: dict[str, Any], tasks: dict[str, Any]) -> str:
        """The nodes of a task whose turn never comes."""
        place = f"{dag}.{name}"
        for parent in self._outbound(dag, task, tasks) or [dag]:
            self._open(f"{place}-driver", "", parent, state=OMITTED)
        self._open(place, "", f"{place}-driver", state=OMITTED)
        for each in (f"{place}-driver", place):
            self.nodes[each].ended = self.nodes[each].started
        return OMITTED

    def _open(self, name: str, template: str, parent: str, *, state: str = "RUNNING") -> str:
        """A node below its parent, made where there is none; one that was omitted begins."""
        now = self.now()
        node = self.nodes.setdefault(name, Node(name, template, now, states=[(now, state)]))
        if node.state == OMITTED and state != OMITTED:
            node.template, node.started, node.ended = template, now, ""
            node.states.append((now, state))
            node.children = [child for child in node.children if child in (f"{name}(0)",)]
        if parent and name not in self.nodes[parent].children:
            self.nodes[parent].children.append(name)
        return name

    def _set(self, name: str, state: str) -> str:
        node = self.nodes[name]
        if node.state != state:
            node.states.append((self.now(), state))
            node.ended = "" if state in ("PENDING", "RUNNING") else self.now()
        return state
