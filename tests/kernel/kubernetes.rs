//! The Helm chart and the manifests of `contrib/`: what Helm renders, what Kubernetes takes, and
//! that they give the agent what it needs and no more.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use kaprobe_testkit::container::{Container, HOST_NAME, Spec};
use kaprobe_testkit::harness::Skip;
use kaprobe_testkit::helm::{self, Answer, Rendered};
use kaprobe_testkit::package::on_host_only;
use kaprobe_testkit::process::{Held, Process, Task};
use kaprobe_testkit::wait::wait_until;
use kaprobe_testkit::{command, golden, http, netns, python};
use serde_json::{Value, json};

use crate::host_name;

/// The schemas of Kubernetes' objects, in the Python package that has them.
const SCHEMAS: &str = "kubernetes_validate/kubernetes-json-schema";

/// The oldest Kubernetes that the chart is for: Chart.yaml has it too.
const OLDEST: &str = "v1.30.0";

fn contrib() -> Result<PathBuf> {
    on_host_only()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib");
    if !folder.exists() {
        return Err(Skip("contrib/ is not on this machine".into()).into());
    }
    Ok(folder.canonicalize()?)
}

/// These values, and where the image is.
fn values(more: &Value) -> Value {
    let mut values = json!({ "image": { "repository": "registry.example.com/kaprobe" } });
    if let (Some(values), Some(more)) = (values.as_object_mut(), more.as_object()) {
        values.extend(more.clone());
    }
    values
}

fn answer(values: &Value) -> Result<Answer> {
    helm::render(&contrib()?.join("helm/kaprobe"), values)
}

fn rendered(more: &Value) -> Result<Rendered> {
    match answer(&values(more))? {
        Answer::Rendered(rendered) => Ok(rendered),
        Answer::Refused { refused } => bail!("{more}: {refused}"),
    }
}

fn object<'r>(rendered: &'r Rendered, kind: &str) -> Result<&'r Value> {
    let mut objects = rendered.objects.values();
    objects
        .find(|it| it["kind"] == kind)
        .with_context(|| format!("no {kind}"))
}

/// The container of the agent.
fn container(rendered: &Rendered) -> Result<Value> {
    let containers = &object(rendered, "DaemonSet")?["spec"]["template"]["spec"]["containers"];
    let [container] = containers.as_array().context("no list")?.as_slice() else {
        bail!("not one container: {containers}");
    };
    Ok(container.clone())
}

fn everything() -> Value {
    json!({
        "podMonitor": { "enabled": true, "labels": { "team": "a" } },
        "prometheusRule": { "enabled": true, "labels": { "team": "a" } },
        "imagePullSecrets": [{ "name": "a" }],
        "priorityClassName": "system-node-critical",
        "podAnnotations": { "a": "b" },
        "podLabels": { "c": "d" },
        "extraArgs": ["--rtt", "--series=500"],
        "hostNetwork": true,
    })
}

/// Helm finds nothing wrong, and `contrib/kubernetes` has what it renders.
pub fn manifests_are_what_helm_renders() -> Result<()> {
    let file = contrib()?.join("kubernetes/kaprobe.yaml");
    let plain = rendered(&json!({}))?;
    for rendered in [&plain, &rendered(&everything())?] {
        ensure!(rendered.lint.is_empty(), "{:?}", rendered.lint);
    }
    let mut text =
        "# kaprobe on every node, as contrib/helm/kaprobe renders it. Name your image, then:\n\
         #\n\
         #   kubectl create namespace kaprobe\n\
         #   kubectl label namespace kaprobe pod-security.kubernetes.io/enforce=privileged\n\
         #   kubectl apply -f kaprobe.yaml\n"
            .to_owned();
    for manifest in plain.manifests.values() {
        text += &format!("---\n{}\n", manifest.trim());
    }
    golden::check_file(&file, &text).map_err(|why| anyhow!(why))
}

/// The schema of an object of a version of Kubernetes. It refuses fields that are not known.
fn schema(version: &Path, object: &Value) -> Result<jsonschema::Validator> {
    let text = fs::read_to_string(version.join("_definitions.json"))?;
    let mut schema: Value = serde_json::from_str(&text)?;
    let text = |field: &str| object[field].as_str().context("not a text");
    let group = match text("apiVersion")?.split_once('/') {
        Some((group, version)) => format!("{group}.{version}"),
        None => format!("core.{}", text("apiVersion")?),
    };
    // The definitions name each other by this path.
    schema["$id"] = "https://kubernetes.invalid/api/_definitions.json".into();
    schema["$ref"] = format!("#/$defs/io.k8s.api.{group}.{}", text("kind")?).into();
    let options = jsonschema::draft202012::options();
    options.build(&schema).map_err(|why| anyhow!("{why}"))
}

/// The schemas of the versions that the chart is for.
fn versions() -> Result<Vec<PathBuf>> {
    let folder = python::folder(&["kubernetes_validate"])?.join(SCHEMAS);
    let mut versions = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with("-local-strict") && *name >= *OLDEST {
            versions.push(path.clone());
        }
    }
    versions.sort();
    let has_oldest = versions
        .first()
        .is_some_and(|it| it.ends_with(format!("{OLDEST}-local-strict")));
    ensure!(has_oldest && versions.len() > 5, "{versions:?}");
    Ok(versions)
}

/// Every object is one that the supported versions of Kubernetes know, with all of its fields.
pub fn objects_pass_the_schemas() -> Result<()> {
    let chart = fs::read_to_string(contrib()?.join("helm/kaprobe/Chart.yaml"))?;
    let oldest = format!("kubeVersion: \">={}-0\"", OLDEST.trim_start_matches('v'));
    ensure!(chart.contains(&oldest), "{chart}");
    let versions = versions()?;
    for more in [json!({}), everything()] {
        let rendered = rendered(&more)?;
        // The kinds of the Prometheus Operator have no schema here.
        let objects = rendered.objects.values();
        let own = objects.filter(|it| it["apiVersion"] != "monitoring.coreos.com/v1");
        let own: Vec<_> = own.collect();
        ensure!(own.len() == 3, "{own:?}");
        for version in &versions {
            for object in &own {
                let schema = schema(version, object)?;
                let errors: Vec<_> = schema.iter_errors(object).collect();
                ensure!(errors.is_empty(), "{}: {errors:?}", version.display());
                let mut wrong = (*object).clone();
                wrong["metadata"]["lables"] = json!({});
                ensure!(!schema.is_valid(&wrong), "{}", version.display());
            }
        }
    }
    Ok(())
}

/// Helm refuses values that make no sense.
pub fn values_are_checked() -> Result<()> {
    for (more, part) in [
        (json!({ "image": { "repository": "" } }), "image.repository"),
        (
            json!({ "image": { "repository": "a", "digest": "b" } }),
            "digest",
        ),
        (
            json!({ "image": { "repository": "a", "pullPolicy": "Sometimes" } }),
            "pullPolicy",
        ),
        (json!({ "port": 0 }), "port"),
        (json!({ "port": "10977" }), "port"),
        (json!({ "listen": "everywhere" }), "listen"),
        (json!({ "listen": "::" }), "listen"),
        (json!({ "recorder": { "hostPath": "logs" } }), "hostPath"),
        (json!({ "extraArgs": ["trace"] }), "extraArgs"),
        (json!({ "tolerations": "all" }), "tolerations"),
        (json!({ "podMonitor": { "interval": "soon" } }), "interval"),
        (json!({ "hostnetwork": true }), "hostnetwork"),
    ] {
        match answer(&values(&more))? {
            Answer::Refused { refused } => ensure!(refused.contains(part), "{more}: {refused}"),
            Answer::Rendered(_) => bail!("taken: {more}"),
        }
    }
    Ok(())
}

/// Values are where they belong, and pods change with the settings.
pub fn values_have_effect() -> Result<()> {
    let digest = format!("sha256:{}", "0".repeat(64));
    let plain = rendered(&json!({}))?;
    let image = container(&plain)?["image"].clone();
    let version = env!("CARGO_PKG_VERSION");
    ensure!(
        image == format!("registry.example.com/kaprobe:{version}"),
        "{image}"
    );
    ensure!(plain.objects.len() == 3, "{:?}", plain.objects.keys());

    let more = json!({
        "image": { "repository": "a.example/b", "tag": "c", "digest": digest },
        "config": "series = 7\nbehind = [\"aws-nlb\"]\n",
        "recorder": { "enabled": false },
        "listen": "[::]",
        "port": 9000,
        "hostNetwork": true,
        "extraArgs": ["--rtt"],
    });
    let changed = rendered(&more)?;
    let container = container(&changed)?;
    ensure!(container["image"] == format!("a.example/b@{digest}"));
    let args = json!([
        "agent",
        "--listen=[::]:9000",
        "--config=/etc/kaprobe/kaprobe.toml",
        "--rtt"
    ]);
    ensure!(container["args"] == args, "{}", container["args"]);
    ensure!(container["ports"][0]["containerPort"] == 9000);
    let [plain_pod, pod] = [&plain, &changed]
        .map(|it| object(it, "DaemonSet").map(|it| it["spec"]["template"].clone()));
    let (plain_pod, pod) = (plain_pod?, pod?);
    ensure!(pod["spec"]["hostNetwork"] == true && plain_pod["spec"]["hostNetwork"].is_null());
    let volumes = pod["spec"]["volumes"].as_array().map(Vec::len);
    ensure!(volumes == Some(1), "{}", pod["spec"]["volumes"]);
    let sum = |pod: &Value| pod["metadata"]["annotations"]["checksum/config"].clone();
    ensure!(sum(&pod) != sum(&plain_pod) && sum(&pod).is_string());
    let settings = object(&changed, "ConfigMap")?["data"]["kaprobe.toml"].clone();
    ensure!(
        settings == "series = 7\nbehind = [\"aws-nlb\"]\n",
        "{settings}"
    );
    Ok(())
}

/// A pod has the capabilities and the memory that the systemd unit has, and nothing of the API.
pub fn privileges_are_those_of_the_unit() -> Result<()> {
    let unit = fs::read_to_string(contrib()?.join("systemd/kaprobe.service"))?;
    let setting = |name: &str| {
        let mut lines = unit.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.with_context(|| format!("the unit has no {name}"))
    };
    let rendered = rendered(&json!({}))?;
    let container = container(&rendered)?;
    let security = &container["securityContext"];
    let added = security["capabilities"]["add"].as_array().context("none")?;
    let added: BTreeSet<_> = added.iter().filter_map(Value::as_str).collect();
    let kept = setting("CapabilityBoundingSet")?.split(' ');
    let mut kept: BTreeSet<_> = kept.filter_map(|it| it.strip_prefix("CAP_")).collect();
    // The unit has a limit of locked memory instead, which a pod can't have.
    ensure!(setting("LimitMEMLOCK")? == "infinity" && kept.insert("SYS_RESOURCE"));
    ensure!(added == kept, "{added:?}, and the unit has {kept:?}");
    ensure!(security["capabilities"]["drop"] == json!(["ALL"]));
    ensure!(security["readOnlyRootFilesystem"] == true && security["privileged"] == false);
    ensure!(security["allowPrivilegeEscalation"] == false);

    let memory = container["resources"]["limits"]["memory"].as_str();
    let memory = memory.and_then(|it| it.strip_suffix('i'));
    ensure!(memory == Some(setting("MemoryMax")?), "{memory:?}");
    let pod = &object(&rendered, "DaemonSet")?["spec"]["template"]["spec"];
    ensure!(pod["hostPID"] == true && pod["automountServiceAccountToken"] == false);
    let account = object(&rendered, "ServiceAccount")?;
    ensure!(account["automountServiceAccountToken"] == false);
    Ok(())
}

/// The Prometheus Operator finds the pods, and has the rules of `contrib/prometheus`.
pub fn operator_finds_pods_and_rules() -> Result<()> {
    let rendered = rendered(&everything())?;
    let pod = &object(&rendered, "DaemonSet")?["spec"]["template"];
    let monitor = &object(&rendered, "PodMonitor")?["spec"];
    let labels = pod["metadata"]["labels"].as_object().context("no labels")?;
    let selected = monitor["selector"]["matchLabels"].as_object();
    let selected = selected.context("nothing is selected")?;
    ensure!(
        selected
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    );
    let port = &container(&rendered)?["ports"][0]["name"];
    ensure!(monitor["podMetricsEndpoints"][0]["port"] == *port);

    let text = fs::read_to_string(contrib()?.join("prometheus/kaprobe.rules.yml"))?;
    let lines: Vec<_> = text.lines().map(|line| format!("  {line}")).collect();
    let mut manifests = rendered.manifests.values();
    ensure!(
        manifests.any(|it| it.contains(&lines.join("\n"))),
        "other rules"
    );
    let rules = &object(&rendered, "PrometheusRule")?["spec"]["groups"][0]["rules"];
    ensure!(rules.as_array().is_some_and(|it| it.len() > 5), "{rules}");
    Ok(())
}

/// The capabilities that this process may pass on.
fn own_capabilities() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let bounds = status.lines().find_map(|it| it.strip_prefix("CapBnd:"));
    Ok(u64::from_str_radix(
        bounds.context("no CapBnd")?.trim(),
        16,
    )?)
}

/// What a runtime makes of the container of a DaemonSet: its volumes are these folders.
fn spec(container: &Value, config: &Path, records: &Path) -> Result<Spec> {
    let texts = |value: &Value| -> Result<Vec<String>> {
        let texts = value.as_array().context("no list")?.iter();
        let texts = texts.map(|it| it.as_str().map(str::to_owned).context("no text"));
        texts.collect()
    };
    let security = &container["securityContext"];
    let mut capabilities = texts(&security["capabilities"]["add"])?;
    // Only Linux before 5.11 needs it, and not every machine of tests has it. Its number is that
    // of include/uapi/linux/capability.h.
    if own_capabilities()? & (1 << 24) == 0 {
        capabilities.retain(|it| it != "SYS_RESOURCE");
    }
    let mut mounts = Vec::new();
    for mount in container["volumeMounts"].as_array().context("no mounts")? {
        let path = mount["mountPath"].as_str().context("no path")?.to_owned();
        let (from, may_write) = match mount["name"].as_str() {
            Some("config") => (config, false),
            Some("records") => (records, true),
            other => bail!("a volume that the test does not know: {other:?}"),
        };
        ensure!((mount["readOnly"] == true) != may_write, "{mount}");
        mounts.push((from.to_owned(), path, may_write));
    }
    Ok(Spec {
        arguments: texts(&container["args"])?,
        capabilities: capabilities.iter().map(|it| format!("CAP_{it}")).collect(),
        mounts,
        no_new_privileges: security["allowPrivilegeEscalation"] == false,
        read_only: security["readOnlyRootFilesystem"] == true,
    })
}

/// The agent works with what the DaemonSet gives it: it sees the connections of another pod and
/// names their process, records under the node's name, and ends when it is told to.
pub fn agent_works_in_a_pod() -> Result<()> {
    let values = json!({
        "config": "series = 7\nloopback = true\n", "extraArgs": ["--interval=1s"],
    });
    let rendered = rendered(&values)?;
    let (config, records) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let settings = &object(&rendered, "ConfigMap")?["data"]["kaprobe.toml"];
    let settings = settings.as_str().context("no settings")?;
    fs::write(config.path().join("kaprobe.toml"), settings)?;

    netns::enter_new()?;
    let mut other = Process::start(Task {
        comm: "broker".to_owned(),
        own_namespaces: true,
        holds: Some(Held {
            address: Ipv4Addr::LOCALHOST.into(),
            count: 3,
            seconds: None,
        }),
        ..Task::default()
    })?;
    other.go()?;
    ensure!(other.netns != netns::inode()?);
    let spec = spec(&container(&rendered)?, config.path(), records.path())?;
    let mut pod = Container::start(&spec)?;
    let address: SocketAddr = ([127, 0, 0, 1], 10_977).into();
    wait_until("the agent counts the connections of the other pod", || {
        pod.check_runs()?;
        let Ok(ready) = http::get(address, "/readyz") else {
            return Ok(false);
        };
        let metrics = http::get(address, "/metrics")?;
        let counted = metrics.metric("kaprobe_connections", "program=\"broker\"");
        // Both ends are in that pod.
        Ok(ready.status == 200 && counted.is_ok_and(|it| it >= 6.0))
    })?;
    ensure!(http::get(address, "/healthz")?.status == 200);
    pod.stop()?;

    let folder = records.path().to_str().context("not UTF-8")?;
    let replayed = command::run(&["replay", folder, "--json", "-q"])?;
    let log = String::from_utf8(replayed.stdout)?;
    let header: Value = serde_json::from_str(log.lines().next().context("an empty log")?)?;
    let host = rustix::system::uname();
    // Where process 1 lets nobody look, the pod's name is all there is.
    let host = match fs::metadata(host_name::HOST) {
        Ok(_) => host.nodename().to_str()?,
        Err(_) => HOST_NAME,
    };
    ensure!(header["header"]["host"] == host, "not {host}: {header}");
    other.dismiss()
}
