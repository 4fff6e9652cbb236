"""`launch/kubernetes.yaml` against JobSet's published schema, as kubeflow-trainer-api has it in classes."""

import copy

import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

from tests.launch.conftest import LAUNCH


def manifest() -> dict:
    return yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())


def checked(document: dict) -> dict:
    """The document as the schema reads it: without what it does not know. Raises ValueError for a wrong type."""
    return JobsetV1alpha2JobSet.from_dict(copy.deepcopy(document)).to_dict()


def test_the_manifest_is_a_jobset_and_every_field_is_known():
    document = manifest()
    assert (document["apiVersion"], document["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert checked(document) == document
    document["spec"]["replicatedJobs"][0]["template"]["spec"]["parallelsim"] = 2
    assert checked(document) != document, "a misspelt field would have shown"
    document["spec"]["failurePolicy"]["maxRestarts"] = "many"
    with pytest.raises(ValueError, match="maxRestarts"):
        checked(document)


def test_a_pod_is_a_process_that_knows_its_place():
    document = manifest()["spec"]
    [group] = document["replicatedJobs"]
    job = group["template"]["spec"]
    [container] = job["template"]["spec"]["containers"]
    env = {
        entry["name"]: entry.get("value") or entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container["env"]
    }
    assert job["completionMode"] == "Indexed"
    assert str(job["completions"]) == str(job["parallelism"]) == env["MMPRETRAIN_NUM_PROCESSES"]
    assert env["MMPRETRAIN_PROCESS_ID"] == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert document["coordinator"] == {"replicatedJob": group["name"], "podIndex": 0}
    assert document["network"]["enableDNSHostnames"]
    assert env["MMPRETRAIN_COORDINATOR"] == f"$(COORDINATOR_HOST):{container['ports'][0]['containerPort']}"
    names = [entry["name"] for entry in container["env"]]
    assert names.index("COORDINATOR_HOST") < names.index("MMPRETRAIN_COORDINATOR"), "$(...) sees what stands before it"


def test_75_restarts_the_jobset_and_any_other_code_fails_it():
    """Kubernetes: a job whose pod matches FailJob fails with the reason PodFailurePolicy, else BackoffLimitExceeded."""
    spec = manifest()["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    exit_codes = [rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert exit_codes == [{"operator": "In", "values": [75]}]
    assert all(rule["action"] == "FailJob" for rule in job["podFailurePolicy"]["rules"])
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never", "what podFailurePolicy requires"
    assert [(rule["action"], rule.get("onJobFailureReasons")) for rule in spec["failurePolicy"]["rules"]] == [
        ("RestartJobSetAndIgnoreMaxRestarts", ["PodFailurePolicy"]),
        ("FailJobSet", None),
    ]
