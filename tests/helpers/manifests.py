"""Checks that every manifest of a container passes."""


def check_few_rights(pod):
    """Checks the rights and the limits of a pod, given its `spec`."""
    rights = pod["securityContext"]
    assert rights["runAsNonRoot"] is True
    assert rights["runAsUser"] == rights["runAsGroup"] == 10001
    assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert set(container["resources"]["limits"]) - {"nvidia.com/gpu"} == {"cpu", "memory"}
    assert not any("hostPath" in volume for volume in pod["volumes"])
    assert all(volume.get("emptyDir", {"sizeLimit": 0}) for volume in pod["volumes"])


def check_few_rights_of_compose(service):
    """Checks the rights and the limits of a service of a compose file."""
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()
    assert service["read_only"]
    assert all(volume["read_only"] for volume in service["volumes"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
