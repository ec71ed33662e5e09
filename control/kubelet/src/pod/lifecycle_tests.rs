//! Whole lives of pods on fakes, in paused time.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::context::{Context, Settings};
use super::fakes::{FakeCluster, FakeNet, FakeRuntime, NoMounter};
use super::manager::{Index, Manager};
use crate::cluster::Cluster;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::network::PodNet;
use crate::volume::Volumes;

struct World {
    runtime: Arc<FakeRuntime>,
    net: Arc<FakeNet>,
    cluster: Arc<FakeCluster>,
    pods: mpsc::UnboundedSender<Event<Pod>>,
    shutdown: CancellationToken,
    pods_dir: Arc<tempfile::TempDir>,
}

impl World {
    fn new() -> Self {
        Self::around(FakeRuntime::new(), Arc::default(), Arc::default(), Arc::new(tempfile::tempdir().unwrap()))
    }

    /// The same machine and API server with a new kubelet.
    fn restarted(self) -> Self {
        self.shutdown.cancel();
        Self::around(self.runtime, self.net, self.cluster, self.pods_dir)
    }

    fn around(
        runtime: Arc<FakeRuntime>,
        net: Arc<FakeNet>,
        cluster: Arc<FakeCluster>,
        pods_dir: Arc<tempfile::TempDir>,
    ) -> Self {
        let shared: Arc<dyn Cluster> = cluster.clone();
        let (network, networks) = watch::channel::<Option<Arc<dyn PodNet>>>(Some(net.clone()));
        let (loaded, images_loaded) = watch::channel(true);
        // Their receivers must not see them closed.
        std::mem::forget((network, loaded));
        let settings = Settings {
            node_name: "n1".into(),
            node_ips: vec!["192.168.77.2".parse().unwrap()],
            pods_dir: pods_dir.path().to_owned(),
            machine_memory: 1 << 30,
            ..Settings::default()
        };
        let context = Arc::new(Context {
            runtime: runtime.clone(),
            network: networks,
            volumes: Volumes::new(Arc::clone(&shared), Arc::new(NoMounter), pods_dir.path().to_owned()),
            events: Events::spawn(Arc::clone(&shared), "n1".into()),
            cluster: shared,
            settings,
            images_loaded,
            pulls: Semaphore::new(1),
            metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
            started: Instant::now(),
        });
        let (pods, receiver) = mpsc::unbounded_channel();
        let stream = futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        let shutdown = CancellationToken::new();
        tokio::spawn(Manager::new(context, Arc::new(Index::default())).run(stream, shutdown.clone()));
        Self { runtime, net, cluster, pods, shutdown, pods_dir }
    }

    /// Lists the pod as the only one of the node.
    fn list(&self, pod: Pod) {
        for event in [Event::Init, Event::InitApply(pod), Event::InitDone] {
            self.pods.send(event).unwrap();
        }
    }

    fn apply(&self, spec: Value) {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u1", "generation": 1}, "spec": spec});
        self.list(self.cluster.set_pod(pod));
    }

    fn change(&self, change: impl FnOnce(&mut Value)) {
        self.pods.send(Event::Apply(self.cluster.change(change))).unwrap();
    }

    fn delete(&self, grace: i64) {
        self.change(|pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        });
    }

    /// Waits (in paused time: as long as anything goes on) until the API server's pod satisfies the test.
    async fn until(&self, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..2_000 {
            let pod = self.cluster.pod().unwrap_or_default();
            if test(&pod) {
                return pod;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("not {what}: {:#}\ncalls: {:?}", self.cluster.pod().unwrap_or_default(), self.runtime.calls());
    }

    async fn until_ready(&self) -> Value {
        self.until("ready", |pod| condition(pod, "Ready") == "True").await
    }
}

fn condition(pod: &Value, name: &str) -> String {
    let list = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = list.iter().find(|condition| condition["type"] == name);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or("none").to_owned()
}

fn container() -> Value {
    json!({"name": "c", "image": "app"})
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_and_is_deleted() {
    let world = World::new();
    world.apply(json!({"containers": [container()], "terminationGracePeriodSeconds": 30}));
    let pod = world.until_ready().await;
    let status = &pod["status"];
    assert_eq!(
        (&status["phase"], &status["podIP"], &status["hostIP"], &status["qosClass"], &status["observedGeneration"]),
        (&json!("Running"), &json!("10.244.0.1"), &json!("192.168.77.2"), &json!("BestEffort"), &json!(1))
    );
    assert_eq!(status["containerStatuses"][0]["containerID"], "tidegate://c2");
    assert!(world.pods_dir.path().join("u1/etc-hosts").exists());
    assert_eq!(world.runtime.calls(), ["run-sandbox 0", "create c 0"]);

    world.delete(30);
    world.until("gone", Value::is_null).await;
    // The object goes last; nothing is left on the node by then.
    assert_eq!(world.runtime.calls()[2..], ["stop c 30".to_owned(), "stop-sandbox".into(), "remove-sandbox".into()]);
    assert_eq!(world.net.attached(), 0);
    assert!(!world.pods_dir.path().join("u1").exists());
    let events = world.cluster.events();
    let reasons: Vec<&str> = events.iter().filter_map(|event| event.split(' ').next()).collect();
    assert_eq!(reasons, ["Pulled", "Created", "Started", "Killing"]);
}

#[tokio::test(start_paused = true)]
async fn a_settled_pod_is_left_alone() {
    let world = World::new();
    world.apply(json!({"containers": [container()]}));
    world.until_ready().await;
    sleep(Duration::from_secs(1)).await;
    let (calls, patches) = (world.runtime.calls(), world.cluster.patches());
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!((world.runtime.calls(), world.cluster.patches()), (calls, patches));
}

#[tokio::test(start_paused = true)]
async fn crashes_are_restarted_and_then_held_back() {
    let world = World::new();
    world.apply(json!({"containers": [container()]}));
    world.until_ready().await;
    world.runtime.exit("c", 1);
    let pod = world.until("restarted", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(pod["status"]["phase"], "Running");
    world.until_ready().await;
    world.runtime.exit("c", 1);
    let waiting =
        |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = world.until("held back", waiting).await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(status["state"]["waiting"]["message"], "back-off 10s restarting failed container=c pod=p_ns(u1)");
    assert_eq!(condition(&pod, "Ready"), "False");
    assert_eq!(pod["status"]["phase"], "Running");
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_in_order_before_the_others() {
    let world = World::new();
    world.apply(json!({"initContainers": [{"name": "i1", "image": "init"}, {"name": "i2", "image": "init"}],
        "containers": [container()]}));
    let running = |name: &'static str| {
        move |pod: &Value| {
            let list = pod["status"]["initContainerStatuses"].as_array().cloned().unwrap_or_default();
            list.iter().any(|status| status["name"] == name && status["state"]["running"].is_object())
        }
    };
    let pod = world.until("at the first", running("i1")).await;
    assert_eq!((&pod["status"]["phase"], condition(&pod, "Initialized").as_str()), (&json!("Pending"), "False"));
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    world.runtime.exit("i1", 0);
    world.until("at the second", running("i2")).await;
    world.runtime.exit("i2", 0);
    world.until_ready().await;
    assert_eq!(world.runtime.calls(), ["run-sandbox 0", "create i1 0", "create i2 0", "create c 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_starts_first_and_ends_last() {
    let world = World::new();
    world.apply(json!({"restartPolicy": "Never", "containers": [container()],
        "initContainers": [{"name": "side", "image": "init", "restartPolicy": "Always"}]}));
    world.until_ready().await;
    world.runtime.exit("c", 0);
    let pod = world.until("succeeded", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(condition(&pod, "Ready"), "False");
    assert_eq!(world.runtime.calls()[1..3], ["create side 0", "create c 0"]);
    assert!(world.runtime.calls()[3].starts_with("stop side"));
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_by_itself_and_keeps_its_address_and_logs() {
    for (code, phase) in [(0, "Succeeded"), (3, "Failed")] {
        let world = World::new();
        world.apply(json!({"restartPolicy": "Never", "containers": [container()]}));
        world.until_ready().await;
        world.runtime.exit("c", code);
        let pod = world.until("ended", |pod| pod["status"]["phase"] == phase).await;
        assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], code);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(world.net.attached(), 0, "its address is free for others");
        assert_eq!(world.cluster.pod().unwrap()["status"]["podIP"], "10.244.0.1");
        assert!(world.pods_dir.path().join("u1/logs/c").exists());
        assert!(!world.runtime.calls().contains(&"remove-sandbox".to_owned()));
        world.delete(30);
        world.until("gone", Value::is_null).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_kubelet_touches_nothing_and_keeps_counting() {
    let world = World::new();
    world.apply(json!({"containers": [json!({"name": "c", "image": "app",
        "readinessProbe": {"exec": {"command": ["ready"]}}})]}));
    world.until_ready().await;
    world.runtime.exit("c", 1);
    world.until("restarted", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    let pod = world.until_ready().await;
    let calls =
        |world: &World| world.runtime.calls().into_iter().filter(|call| !call.starts_with("exec")).collect::<Vec<_>>();
    let before = calls(&world);
    let world = world.restarted();
    world.list(serde_json::from_value(world.cluster.pod().unwrap()).unwrap());
    for _ in 0..300 {
        sleep(Duration::from_millis(100)).await;
        let now = world.cluster.pod().unwrap();
        assert_eq!(now["status"]["containerStatuses"], pod["status"]["containerStatuses"]);
        assert_eq!(condition(&now, "Ready"), "True");
    }
    assert_eq!(calls(&world), before);
    world.runtime.exit("c", 1);
    world.until("restarted", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_sandbox_is_replaced_and_restarts_are_counted_on() {
    let world = World::new();
    world.apply(json!({"containers": [container()]}));
    world.until_ready().await;
    world.runtime.kill_sandbox();
    let pod =
        world.until("back", |pod| pod["status"]["podIP"] == "10.244.0.2" && condition(pod, "Ready") == "True").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!(world.net.attached(), 1);
}

#[tokio::test(start_paused = true)]
async fn sandboxes_of_unknown_pods_are_removed() {
    let world = World::new();
    world.apply(json!({"containers": [container()]}));
    world.until_ready().await;
    let world = world.restarted();
    // The new kubelet learns that there are no pods.
    for event in [Event::Init, Event::InitDone] {
        world.pods.send(event).unwrap();
    }
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.net.attached(), 0);
    assert_eq!(world.runtime.calls().last().map(String::as_str), Some("remove-sandbox"));
    assert!(!world.pods_dir.path().join("u1").exists());
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_by_force_leaves_nothing() {
    let world = World::new();
    world.apply(json!({"containers": [container()]}));
    world.until_ready().await;
    let pod: Pod = serde_json::from_value(world.cluster.pod().unwrap()).unwrap();
    world.pods.send(Event::Delete(pod)).unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.runtime.calls()[2..], ["stop c 2", "stop-sandbox", "remove-sandbox"]);
    assert!(!world.pods_dir.path().join("u1").exists());
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_waited_for() {
    let world = World::new();
    world.apply(json!({"containers": [{"name": "c", "image": "late"}]}));
    let reason = |wanted: &'static str| {
        move |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == wanted
    };
    world.until("failing", reason("ErrImagePull")).await;
    let pod = world.until("backing off", reason("ImagePullBackOff")).await;
    let message = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    let text = "Back-off pulling image \"late\": ErrImagePull: docker.io/library/late:latest: not found";
    assert_eq!(message, text);
    world.runtime.publish("docker.io/library/late:latest");
    world.until_ready().await;
    let events = world.cluster.events();
    for wanted in [
        "Pulling Pulling image \"late\"",
        "Failed Failed to pull image \"late\": docker.io/library/late:latest: not found",
        "Failed Error: ErrImagePull",
        "BackOff Back-off pulling image \"late\"",
        "Failed Error: ImagePullBackOff",
        "Pulled Successfully pulled image \"late\" in ",
    ] {
        assert!(events.iter().any(|event| event.starts_with(wanted)), "{wanted}: {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_always_pulled_is_asked_for_although_it_is_here() {
    let world = World::new();
    world.runtime.publish("docker.io/library/app:latest");
    world.apply(json!({"containers": [{"name": "c", "image": "app", "imagePullPolicy": "Always"}]}));
    world.until_ready().await;
    assert!(world.runtime.calls().contains(&"pull docker.io/library/app:latest".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_none_is_told_of() {
    let world = World::new();
    world.apply(json!({"containers": [{"name": "c", "image": "No Name"}]}));
    let reason =
        |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "InvalidImageName";
    world.until("refused", reason).await;
    let events = world.cluster.events();
    assert!(
        events.iter().any(|event| event.starts_with("InspectFailed Failed to apply default image tag \"No Name\""))
    );
}

#[tokio::test(start_paused = true)]
async fn an_image_that_may_not_be_pulled_is_named_so() {
    let world = World::new();
    world.apply(json!({"containers": [{"name": "c", "image": "late", "imagePullPolicy": "Never"}]}));
    let reason =
        |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull";
    world.until("refused", reason).await;
}

#[tokio::test(start_paused = true)]
async fn a_config_map_is_waited_for_and_reaches_files_and_environment() {
    let world = World::new();
    world.apply(json!({"volumes": [{"name": "v", "configMap": {"name": "cm"}}],
        "containers": [{"name": "c", "image": "app", "volumeMounts": [{"name": "v", "mountPath": "/etc/app"}],
            "env": [{"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "color"}}}]}]}));
    sleep(Duration::from_secs(3)).await;
    assert!(
        world
            .cluster
            .events()
            .iter()
            .any(|event| event.starts_with("FailedMount") && event.contains("\"cm\" not found"))
    );
    world.cluster.set_config_map("cm", &[("color", "red")]);
    world.until_ready().await;
    assert_eq!(world.runtime.labels("c")["env:COLOR"], "red");
    let file = world.pods_dir.path().join("u1/volumes/kubernetes.io~configmap/v/color");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "red");
    world.cluster.set_config_map("cm", &[("color", "blue")]);
    // File work happens on real threads: paused time must not run away from it.
    for _ in 0..100 {
        sleep(Duration::from_secs(2)).await;
        if std::fs::read_to_string(&file).unwrap() == "blue" {
            return;
        }
    }
    panic!("the change has not arrived");
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_its_probe() {
    let world = World::new();
    world.runtime.command("ready", 1);
    world.apply(json!({"containers": [{"name": "c", "image": "app",
        "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 1, "failureThreshold": 2}}]}));
    let pod = world.until("running", |pod| pod["status"]["phase"] == "Running").await;
    assert_eq!(condition(&pod, "Ready"), "False");
    world.runtime.command("ready", 0);
    world.until_ready().await;
    world.runtime.command("ready", 1);
    let pod = world.until("unready", |pod| condition(pod, "Ready") == "False").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_liveness_probe_restarts_the_container() {
    let world = World::new();
    world.apply(json!({"containers": [{"name": "c", "image": "app",
        "livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 3,
            "terminationGracePeriodSeconds": 7}}]}));
    world.until_ready().await;
    world.runtime.command("alive", 1);
    world.until("restarted", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert!(world.runtime.calls().contains(&"stop c 7".to_owned()), "{:?}", world.runtime.calls());
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_holds_readiness_back() {
    let world = World::new();
    world.runtime.command("up", 1);
    world.apply(json!({"containers": [{"name": "c", "image": "app",
        "startupProbe": {"exec": {"command": ["up"]}, "periodSeconds": 1, "failureThreshold": 30}}]}));
    let pod = world.until("running", |pod| pod["status"]["phase"] == "Running").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["started"], false);
    assert_eq!(condition(&pod, "Ready"), "False");
    world.runtime.command("up", 0);
    let pod = world.until_ready().await;
    assert_eq!(pod["status"]["containerStatuses"][0]["started"], true);
}

#[tokio::test(start_paused = true)]
async fn hooks_run_and_count_against_the_grace() {
    let world = World::new();
    world
        .apply(json!({"terminationGracePeriodSeconds": 30, "containers": [{"name": "c", "image": "app", "lifecycle": {
        "postStart": {"exec": {"command": ["hello"]}}, "preStop": {"sleep": {"seconds": 20}}}}]}));
    world.until_ready().await;
    assert!(world.runtime.calls().contains(&"exec hello".to_owned()));
    world.delete(30);
    sleep(Duration::from_secs(25)).await;
    world.until("gone", Value::is_null).await;
    assert!(world.runtime.calls().contains(&"stop c 10".to_owned()), "{:?}", world.runtime.calls());
}

#[tokio::test(start_paused = true)]
async fn a_failed_post_start_hook_restarts_the_container() {
    let world = World::new();
    world.runtime.command("hello", 1);
    world.apply(json!({"containers": [{"name": "c", "image": "app", "lifecycle": {
        "postStart": {"exec": {"command": ["hello"]}}}}]}));
    world.until("restarted", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert!(world.cluster.events().iter().any(|event| event.starts_with("FailedPostStartHook")));
}

#[tokio::test(start_paused = true)]
async fn a_shortened_grace_is_obeyed() {
    let world = World::new();
    world.apply(
        json!({"terminationGracePeriodSeconds": 600, "containers": [{"name": "c", "image": "app", "lifecycle": {
        "preStop": {"sleep": {"seconds": 500}}}}]}),
    );
    world.until_ready().await;
    world.delete(600);
    sleep(Duration::from_secs(5)).await;
    world.delete(1);
    world.until("gone", Value::is_null).await;
    assert!(world.runtime.calls().contains(&"stop c 0".to_owned()), "{:?}", world.runtime.calls());
}

#[tokio::test(start_paused = true)]
async fn an_overdue_pod_fails() {
    let world = World::new();
    let start = crate::clock::now() - jiff::SignedDuration::from_secs(100);
    let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u1"},
        "spec": {"activeDeadlineSeconds": 50, "containers": [container()]}, "status": {"startTime": start.to_string()}});
    world.list(world.cluster.set_pod(pod));
    let pod = world.until("failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

#[tokio::test(start_paused = true)]
async fn another_image_replaces_the_container() {
    let world = World::new();
    world.apply(json!({"containers": [container()]}));
    world.until_ready().await;
    world.change(|pod| pod["spec"]["containers"][0]["image"] = json!("init"));
    let pod = world.until("replaced", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["image"], "init");
}

#[tokio::test(start_paused = true)]
async fn ephemeral_containers_run_once_beside_the_others() {
    let world = World::new();
    world.apply(json!({"containers": [container()]}));
    world.until_ready().await;
    world.change(|pod| {
        pod["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "init", "targetContainerName": "c"}])
    });
    let running = |pod: &Value| pod["status"]["ephemeralContainerStatuses"][0]["state"]["running"].is_object();
    world.until("debugged", running).await;
    world.runtime.exit("e", 3);
    let ended = |pod: &Value| pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3;
    let pod = world.until("done", ended).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(pod["status"]["phase"], "Running");
    let started = world.runtime.calls().iter().filter(|call| call.starts_with("create e")).count();
    assert_eq!(started, 1, "{:?}", world.runtime.calls());
}

#[tokio::test(start_paused = true)]
async fn other_resources_are_given_to_the_running_container() {
    let world = World::new();
    let with = |memory: &str| json!({"limits": {"memory": memory}});
    let mut small = container();
    small["resources"] = with("64Mi");
    world.apply(json!({"containers": [small]}));
    world.until_ready().await;
    world.change(|pod| pod["spec"]["containers"][0]["resources"] = with("128Mi"));
    let resized = |pod: &Value| pod["status"]["containerStatuses"][0]["resources"] == with("128Mi");
    let pod = world.until("resized", resized).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    assert!(world.runtime.calls().contains(&"limit c Some(134217728)".to_owned()), "{:?}", world.runtime.calls());
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_unsafe_kernel_parameters_is_not_started() {
    let world = World::new();
    world.apply(json!({"containers": [container()],
        "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}));
    let pod = world.until("failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "SysctlForbidden");
    assert!(!world.runtime.calls().iter().any(|call| call.starts_with("create")));
}
