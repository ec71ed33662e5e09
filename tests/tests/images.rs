//! Images through the real program: archives as people have them, registries as they are, good and bad.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use control_runtime::{Credentials, Dialer, ImageRecord, ImageStore, PullError, Reference, Registries};
use tidegate_tests::cluster::{Cluster, Kubectl, eventually};
use tidegate_tests::control::program;
use tidegate_tests::image::{Image, gzip, tar_of};
use tidegate_tests::registry::{Access, Fault, Registry};

/// `tidegate image` on a data directory of its own.
struct Data(tempfile::TempDir);

impl Data {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    }

    fn image(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.arg("image").args(args).arg("--data-dir").arg(self.0.path().join("data"));
        command.output().unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.image(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let output = self.image(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// What the store holds beyond its empty directories.
    fn content(&self) -> Vec<String> {
        let mut found = Vec::new();
        for dir in ["blobs/sha256", "layers", "staging"] {
            let entries = fs::read_dir(self.0.path().join("data/images").join(dir)).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| format!("{dir}/{}", entry.file_name().to_string_lossy())));
        }
        found
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn layout(dir: &Path, image: &Image, name: &str) -> Vec<u8> {
    let layout = dir.join("layout");
    image.write_layout(&layout, name);
    tar_of(&layout)
}

#[test]
fn archives_of_every_kind_are_imported() {
    let image = Image::new("hello");
    let oci = layout(tempfile::tempdir().unwrap().path(), &image, "team/app:1");
    let docker = image.docker_archive("team/app:1");
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let cases = [
        ("oci.tar", oci.clone()),
        ("oci.tar.gz", gzip(&oci)),
        ("oci.tar.zst", zstd(&oci)),
        ("docker.tar", docker.clone()),
        ("docker.tgz", gzip(&docker)),
        ("docker.tar.zst", zstd(&docker)),
    ];
    for (name, bytes) in cases {
        let data = Data::new();
        let path = data.file(name, &bytes);
        let said = data.ok(&["import", &path]);
        let id = &image.config.hex()[..12];
        assert_eq!(said, format!("imported docker.io/team/app:1 ({id})\n"), "{name}");
        let listed = data.ok(&["ls"]);
        assert!(listed.contains("docker.io/team/app:1") && listed.contains(id), "{name}: {listed}");
    }
}

#[test]
fn a_corrupt_archive_is_refused_and_the_store_works_on() {
    let data = Data::new();
    let image = Image::new("hello");
    let good = layout(data.0.path(), &image, "team/app:1");
    let packed = gzip(&good);
    let mut flipped = packed.clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 64].iter_mut().for_each(|byte| *byte ^= 0x55);
    for (name, bytes, wanted) in [
        ("cut.tar", &good[..good.len() / 2], "is damaged"),
        ("cut.tar.gz", &packed[..packed.len() / 2], "is damaged"),
        ("flipped.tar.gz", &flipped[..], "is damaged"),
        ("noise.tar", &[7; 4096][..], "is damaged"),
        ("empty.tar", &[][..], "is neither an OCI layout"),
        ("words.xz", b"\xfd7zXZ\0and more", "compressed with xz"),
    ] {
        let path = data.file(name, bytes);
        let said = data.fails(&["import", &path]);
        assert!(said.starts_with(&format!("tidegate: cannot import {path}: ")), "{said}");
        assert!(said.contains(wanted), "{name}: {said}");
        assert_eq!(data.content(), Vec::<String>::new(), "{name}");
    }
    let path = data.file("good.tar", &good);
    let _ = data.ok(&["import", &path]);
    assert!(data.ok(&["ls"]).contains("docker.io/team/app:1"));
}

#[test]
fn a_digest_mismatch_is_refused_and_the_store_works_on() {
    let data = Data::new();
    let image = Image::new("precious");
    let other = Image::new("poisoned");
    // A layer whose content is another's, of whatever length.
    let dir = data.0.path().join("bad");
    image.write_layout(&dir, "team/app:1");
    fs::write(dir.join("blobs/sha256").join(image.layers[1].hex()), &other.layers[1].bytes).unwrap();
    let path = data.file("bad.tar", &tar_of(&dir));
    let said = data.fails(&["import", &path]);
    assert!(said.contains(&image.layers[1].digest), "{said}");
    assert_eq!(data.content(), Vec::<String>::new());
    assert_eq!(data.ok(&["ls"]).lines().count(), 1);
    let good = data.file("good.tar", &layout(data.0.path(), &image, "team/app:1"));
    let _ = data.ok(&["import", &good]);
    assert!(data.ok(&["ls"]).contains("docker.io/team/app:1"));
}

/// A store to pull into, without a cluster around it.
struct Puller {
    _dir: tempfile::TempDir,
    store: ImageStore,
    registries: Registries,
}

impl Puller {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&dir.path().join("images")).unwrap();
        Self { _dir: dir, store, registries: Registries::new(Dialer::Direct) }
    }

    async fn pull(&self, name: &str, logins: &[&str]) -> Result<ImageRecord, PullError> {
        let credentials: Vec<Credentials> = logins
            .iter()
            .map(|login| login.split_once(':').unwrap())
            .map(|(user, password)| Credentials { username: user.into(), password: password.into() })
            .collect();
        self.store.pull(&self.registries, &Reference::parse(name).unwrap(), &credentials).await
    }
}

#[tokio::test]
async fn an_image_is_pulled_once() {
    let (registry, puller, image) = (Registry::start(), Puller::new(), Image::new("hello"));
    let index = registry.publish("team/app", "1", &image);
    let name = registry.reference("team/app:1");
    let pulled = puller.pull(&name, &[]).await.unwrap();
    assert_eq!((pulled.id.as_str(), pulled.digest.as_str()), (&*image.config.digest, &*image.manifest.digest));
    let by_digest = registry.reference(&format!("team/app@{index}"));
    assert_eq!(pulled.repository_digests(), std::slice::from_ref(&by_digest));
    // Found by its tag, and by the digest of the index that the tag leads to.
    for name in [&name, &by_digest, &pulled.id] {
        assert_eq!(puller.store.resolve(name).await.as_ref(), Some(&pulled), "{name}");
    }
    let blobs = |registry: &Registry| registry.requests().iter().filter(|it| it.path.contains("/blobs/")).count();
    assert_eq!(blobs(&registry), 3);
    assert_eq!(puller.pull(&name, &[]).await.unwrap(), pulled);
    assert_eq!(blobs(&registry), 3, "what is here is not fetched again");
    puller.store.remove(&name).await.unwrap();
    assert!(puller.store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_digest_is_enough_of_a_name() {
    let (registry, puller, image) = (Registry::start(), Puller::new(), Image::new("hello"));
    let index = registry.publish("team/app", "1", &image);
    let name = registry.reference(&format!("team/app@{index}"));
    let pulled = puller.pull(&name, &[]).await.unwrap();
    assert_eq!((pulled.references.len(), pulled.pulled.as_slice()), (0, &[name.clone()][..]));
    assert_eq!(puller.store.resolve(&name).await, Some(pulled));
}

#[tokio::test]
async fn registries_are_met_with_what_they_ask_for() {
    for access in [Access::Basic("me:secret"), Access::Token("me:secret")] {
        let (registry, puller, image) = (Registry::start(), Puller::new(), Image::new("hello"));
        registry.publish("team/app", "1", &image);
        registry.restrict(access.clone());
        registry.redirect_blobs();
        let name = registry.reference("team/app:1");
        for logins in [&[][..], &["me:wrong"]] {
            let error = puller.pull(&name, logins).await.unwrap_err();
            assert!(matches!(error, PullError::Denied { .. }), "{access:?} {logins:?}: {error}");
            assert!(error.to_string().contains("401 Unauthorized"), "{error}");
        }
        // The first login that works is taken; nothing of it goes to where the blobs really are.
        puller.pull(&name, &["other:login", "me:secret"]).await.unwrap();
        let elsewhere: Vec<_> =
            registry.requests().into_iter().filter(|it| it.path.starts_with("/elsewhere/")).collect();
        assert!(elsewhere.len() == 3 && elsewhere.iter().all(|it| !it.authorized), "{elsewhere:?}");
    }
}

#[tokio::test]
async fn a_blob_that_breaks_off_is_resumed() {
    let (registry, puller, image) = (Registry::start(), Puller::new(), Image::new("hello"));
    registry.publish("team/app", "1", &image);
    let layer = &image.layers[0];
    registry.fault(&layer.digest, Fault::Truncated { times: 2 });
    registry.fault(&image.config.digest, Fault::Busy { times: 1 });
    puller.pull(&registry.reference("team/app:1"), &[]).await.unwrap();
    let of_layer: Vec<_> = registry.requests().into_iter().filter(|it| it.path.ends_with(&layer.digest)).collect();
    let (half, three_quarters) = (layer.bytes.len() / 2, layer.bytes.len() - layer.bytes.len().div_ceil(2).div_ceil(2));
    let ranges: Vec<_> = of_layer.into_iter().map(|it| it.range).collect();
    let wanted = [None, Some(format!("bytes={half}-")), Some(format!("bytes={three_quarters}-"))];
    assert_eq!(ranges, wanted);
}

#[tokio::test]
async fn a_later_pull_goes_on_where_the_last_one_gave_up() {
    let (registry, puller, image) = (Registry::start(), Puller::new(), Image::new("hello"));
    registry.publish("team/app", "1", &image);
    registry.fault(&image.layers[1].digest, Fault::Missing);
    let name = registry.reference("team/app:1");
    // The other blobs come meanwhile, or in the next pull.
    let error = puller.pull(&name, &[]).await.unwrap_err();
    assert!(matches!(error, PullError::NotFound { .. }), "{error}");
    assert!(puller.store.list().await.unwrap().is_empty());
    registry.repair();
    puller.pull(&name, &[]).await.unwrap();
}

#[tokio::test]
async fn wrong_content_is_never_taken_in() {
    let (registry, image) = (Registry::start(), Image::new("hello"));
    registry.publish("team/app", "1", &image);
    let name = registry.reference("team/app:1");
    for blob in [&image.layers[0], &image.config, &image.manifest] {
        let puller = Puller::new();
        registry.fault(&blob.digest, Fault::BadDigest);
        let error = puller.pull(&name, &[]).await.unwrap_err().to_string();
        assert!(error.contains(&format!("blob {} has the content of sha256:", blob.digest)), "{error}");
        assert!(puller.store.list().await.unwrap().is_empty());
        registry.repair();
        puller.pull(&name, &[]).await.unwrap();
    }
}

#[tokio::test]
async fn two_pulls_at_once_share_their_downloads() {
    let (registry, puller, image) = (Registry::start(), Puller::new(), Image::new("hello"));
    registry.publish("team/app", "1", &image);
    let name = registry.reference("team/app:1");
    let (one, other) = tokio::join!(puller.pull(&name, &[]), puller.pull(&name, &[]));
    assert_eq!(one.unwrap(), other.unwrap());
    let left = fs::read_dir(puller._dir.path().join("images/downloads/blobs/sha256")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let (registry, puller) = (Registry::start(), Puller::new());
    let name = registry.reference("team/none:1");
    let error = puller.pull(&name, &[]).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{name}: not found"));
    let error = puller.pull("127.0.0.1:1/x:1", &[]).await.unwrap_err();
    assert!(error.is_unreachable() && error.to_string().contains("refused"), "{error}");
}

/// A pod that runs an image; `more` is added to its specification.
fn pod(name: &str, image: &str, policy: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  {more}\n  \
         containers:\n  - {{name: main, image: \"{image}\", imagePullPolicy: {policy}}}\n---\n"
    )
}

fn waiting(kubectl: &Kubectl<'_>, pod: &str) -> (String, String) {
    let pod = kubectl.get(&["pod", pod]);
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    let text = |key: &str| waiting[key].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

#[track_caller]
fn until_waiting(kubectl: &Kubectl<'_>, pod: &str, reason: &str) -> String {
    eventually(&format!("{pod} waits for {reason}"), || {
        let (found, message) = waiting(kubectl, pod);
        (found == reason).then_some(message)
    })
}

#[track_caller]
fn until_ready(kubectl: &Kubectl<'_>, pod: &str) {
    let _ = kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=120s"]);
}

#[test]
fn pods_get_their_images_from_registries() {
    let cluster = Cluster::start();
    let kubectl = cluster.kubectl();
    let open = Registry::start();
    let closed = Registry::start();
    let (hello, secret) = (Image::new("hello"), Image::new("secret"));
    let index = open.publish("team/app", "1", &hello);
    closed.publish("team/app", "1", &secret);
    closed.restrict(Access::Token("me:secret"));
    pulled_with_events(&kubectl, &open, &index);
    policies_are_kept(&kubectl, &open);
    imported_images_need_no_registry(&cluster);
    secrets_open_registries(&kubectl, &closed);
    failures_are_told_and_overcome(&kubectl, &open);
}

fn pulled_with_events(kubectl: &Kubectl<'_>, registry: &Registry, index: &str) {
    let name = registry.reference("team/app:1");
    kubectl.apply(&pod("first", &name, "IfNotPresent", ""));
    until_ready(kubectl, "first");
    assert_eq!(kubectl.ok(&["logs", "first"]), "hello\n");
    let status = kubectl.get(&["pod", "first"])["status"]["containerStatuses"][0].clone();
    assert_eq!(status["imageID"], registry.reference(&format!("team/app@{index}")));
    assert_eq!(kubectl.events("first", "Pulling"), [format!("Pulling image \"{name}\"")]);
    let pulled = kubectl.events("first", "Pulled").join("\n");
    let parts = [
        format!("Successfully pulled image \"{name}\" in "),
        " including waiting). Image size: ".into(),
        " bytes.".into(),
    ];
    assert!(parts.iter().all(|part| pulled.contains(part)), "{pulled}");
}

fn policies_are_kept(kubectl: &Kubectl<'_>, registry: &Registry) {
    let name = registry.reference("team/app:1");
    let asked = || registry.requests().iter().filter(|it| it.path.ends_with("/manifests/1")).count();
    let before = asked();
    kubectl.apply(&pod("present", &name, "IfNotPresent", ""));
    until_ready(kubectl, "present");
    assert_eq!(asked(), before);
    let told = kubectl.events("present", "Pulled").join("\n");
    assert!(told.starts_with(&format!("Container image \"{name}\" already present on machine")), "{told}");
    kubectl.apply(&pod("always", &name, "Always", ""));
    until_ready(kubectl, "always");
    assert_eq!(asked(), before + 1);
    let never = registry.reference("team/app:2");
    kubectl.apply(&pod("never", &never, "Never", ""));
    let message = until_waiting(kubectl, "never", "ErrImageNeverPull");
    assert_eq!(message, format!("Container image \"{never}\" is not present with pull policy of Never"));
    kubectl.apply(&pod("nameless", "No/Name", "Always", ""));
    let message = until_waiting(kubectl, "nameless", "InvalidImageName");
    assert!(
        message.starts_with("Failed to apply default image tag \"No/Name\": couldn't parse image name"),
        "{message}"
    );
}

/// What was imported by hand is used although no registry can be asked for it.
fn imported_images_need_no_registry(cluster: &Cluster) {
    let kubectl = cluster.kubectl();
    let name = "127.0.0.1:1/team/app:latest";
    let archive = cluster.path("app.tar");
    fs::write(&archive, Image::new("imported").docker_archive(name)).unwrap();
    let mut import = Command::new(program());
    import.args(["image", "import"]).arg(archive).arg("--data-dir").arg(cluster.data_dir());
    assert!(import.status().unwrap().success());
    kubectl.apply(&pod("imported", name, "Always", ""));
    until_ready(&kubectl, "imported");
    assert_eq!(kubectl.ok(&["logs", "imported"]), "imported\n");
    let told = kubectl.events("imported", "Pulled").join("\n");
    assert!(told.contains("its registry cannot be reached"), "{told}");
}

fn secrets_open_registries(kubectl: &Kubectl<'_>, registry: &Registry) {
    let name = registry.reference("team/app:1");
    kubectl.apply(&pod("locked-out", &name, "Always", "imagePullSecrets: [{name: absent}]"));
    let message = until_waiting(kubectl, "locked-out", "ErrImagePull");
    assert!(message.contains("401 Unauthorized"), "{message}");
    let told = kubectl.events("locked-out", "FailedToRetrieveImagePullSecret").join("\n");
    assert!(told.starts_with("Unable to retrieve some image pull secrets (absent)"), "{told}");
    let server = format!("--docker-server={}", registry.reference("").trim_end_matches('/'));
    let secret =
        ["create", "secret", "docker-registry", "login", &server, "--docker-username=me", "--docker-password=secret"];
    let _ = kubectl.ok(&secret);
    kubectl.apply(&pod("let-in", &name, "Always", "imagePullSecrets: [{name: login}]"));
    until_ready(kubectl, "let-in");
    assert_eq!(kubectl.ok(&["logs", "let-in"]), "secret\n");
}

fn failures_are_told_and_overcome(kubectl: &Kubectl<'_>, registry: &Registry) {
    let late = Image::new("late");
    let name = registry.reference("team/late:1");
    kubectl.apply(&pod("late", &name, "IfNotPresent", ""));
    assert_eq!(until_waiting(kubectl, "late", "ErrImagePull"), format!("{name}: not found"));
    let message = until_waiting(kubectl, "late", "ImagePullBackOff");
    assert_eq!(message, format!("Back-off pulling image \"{name}\": ErrImagePull: {name}: not found"));
    let failed = kubectl.events("late", "Failed");
    for wanted in [
        format!("Failed to pull image \"{name}\": {name}: not found"),
        "Error: ErrImagePull".to_owned(),
        "Error: ImagePullBackOff".to_owned(),
    ] {
        assert!(failed.contains(&wanted), "{wanted}: {failed:?}");
    }
    assert_eq!(kubectl.events("late", "BackOff"), [format!("Back-off pulling image \"{name}\"")]);
    registry.publish("team/late", "1", &late);
    until_ready(kubectl, "late");
    assert_eq!(kubectl.ok(&["logs", "late"]), "late\n");
}
