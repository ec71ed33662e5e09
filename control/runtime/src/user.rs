//! Who a container's process runs as: numbers, or names of the image's own passwd and group files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// Larger account files are not read to the end: an image must not exhaust the shim's memory.
const ACCOUNT_FILE_BYTES_MAX: u64 = 4 << 20;

const IMAGE_IS_ROOT: &str = "container has runAsNonRoot and image will run as root";

/// Why a container that must not run as root may not be made, as far as that can be told without its files.
pub(crate) fn may_be_root(user: Option<i64>, image: Option<&str>) -> Option<String> {
    match user {
        Some(0) => return Some("container's runAsUser breaks non-root policy".to_owned()),
        Some(_) => return None,
        None => {}
    }
    let name = image.unwrap_or_default().split(':').next().unwrap_or_default();
    match name.parse::<u32>() {
        _ if name.is_empty() => Some(IMAGE_IS_ROOT.to_owned()),
        Ok(0) => Some(IMAGE_IS_ROOT.to_owned()),
        Ok(_) => None,
        Err(_) => Some(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        )),
    }
}

/// User, group and supplementary groups of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// What the pod asks for; it wins over the image.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) user: Option<i64>,
    pub(crate) group: Option<i64>,
    pub(crate) supplemental: &'a [i64],
    /// `user[:group]` of the image.
    pub(crate) image: Option<&'a str>,
    pub(crate) must_not_be_root: bool,
}

/// The account files of an image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads the files below a root without following anything out of it. Missing files are empty.
    pub(crate) fn read(rootfs: &Path) -> io::Result<Self> {
        Ok(Self { passwd: read_inside(rootfs, "etc/passwd")?, group: read_inside(rootfs, "etc/group")? })
    }

    /// Decides the credentials, as container runtimes do: names need an entry, numbers do not, and a user's group
    /// memberships count only if the group file lists them.
    pub(crate) fn resolve(&self, wanted: Wanted<'_>) -> Result<Credentials, String> {
        let image = wanted.image.unwrap_or_default();
        let (image_user, image_group) = image.split_once(':').unwrap_or((image, ""));
        let user = match wanted.user {
            Some(uid) => self.user_by_number(number(uid)?),
            None if image_user.is_empty() => self.user_by_number(0),
            None => self.user_by_text(image_user)?,
        };
        let gid = match wanted.group {
            Some(gid) => number(gid)?,
            // The image's group belongs to the image's user only.
            None if wanted.user.is_none() && !image_group.is_empty() => self.group_by_text(image_group)?,
            None => user.gid,
        };
        if wanted.must_not_be_root && user.uid == 0 {
            return Err(IMAGE_IS_ROOT.to_owned());
        }
        let mut groups: Vec<u32> = user.name.map(|name| self.memberships(name)).unwrap_or_default();
        for group in wanted.supplemental {
            groups.push(number(*group)?);
        }
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        Ok(Credentials { uid: user.uid, gid, groups })
    }

    fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(User { name: Some(name), uid, gid })
        })
    }

    /// (name, gid, members)
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or_default()))
        })
    }

    fn user_by_number(&self, uid: u32) -> User<'_> {
        self.users().find(|user| user.uid == uid).unwrap_or(User { name: None, uid, gid: 0 })
    }

    fn user_by_text(&self, text: &str) -> Result<User<'_>, String> {
        if let Some(user) = self.users().find(|user| user.name == Some(text)) {
            return Ok(user);
        }
        let uid = text.parse().map_err(|_| format!("user {text} is not in the image's /etc/passwd"))?;
        Ok(self.user_by_number(uid))
    }

    fn group_by_text(&self, text: &str) -> Result<u32, String> {
        if let Some((_, gid, _)) = self.groups().find(|(name, ..)| *name == text) {
            return Ok(gid);
        }
        text.parse().map_err(|_| format!("group {text} is not in the image's /etc/group"))
    }

    fn memberships(&self, name: &str) -> Vec<u32> {
        let is_member = |members: &str| members.split(',').any(|member| member.trim() == name);
        self.groups().filter(|(_, _, members)| is_member(members)).map(|(_, gid, _)| gid).collect()
    }
}

#[derive(Debug, Clone, Copy)]
struct User<'a> {
    name: Option<&'a str>,
    uid: u32,
    gid: u32,
}

fn number(id: i64) -> Result<u32, String> {
    u32::try_from(id).map_err(|_| format!("{id} is not a user or group number"))
}

fn read_inside(rootfs: &Path, path: &str) -> io::Result<String> {
    let root = open(rootfs, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        // A FIFO or a device in its place must not block.
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(&root, path, how) {
        Ok(fd) => File::from(fd),
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut text = Vec::new();
    file.take(ACCOUNT_FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_proves_that_a_user_is_not_root() {
        for (user, image, fine) in [
            (Some(0), Some("1000"), false),
            (Some(7), Some("root"), true),
            (None, None, false),
            (None, Some("0:0"), false),
            (None, Some("1000:0"), true),
            (None, Some("nginx"), false),
        ] {
            assert_eq!(may_be_root(user, image).is_none(), fine, "{user:?} {image:?}");
        }
    }

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/app:\nbroken line\n".to_owned(),
            group: "root:x:0:\nstaff:x:50:app,other\nweb:x:80:other\n".to_owned(),
        }
    }

    fn resolve(wanted: Wanted<'_>) -> Result<(u32, u32, Vec<u32>), String> {
        accounts().resolve(wanted).map(|it| (it.uid, it.gid, it.groups))
    }

    #[test]
    fn images_name_users_in_every_way() {
        let image = |text| resolve(Wanted { image: Some(text), ..Wanted::default() });
        assert_eq!(resolve(Wanted::default()), Ok((0, 0, vec![0])));
        assert_eq!(image("app"), Ok((1000, 1001, vec![50, 1001])));
        assert_eq!(image("1000"), Ok((1000, 1001, vec![50, 1001])));
        assert_eq!(image("app:web"), Ok((1000, 80, vec![50, 80])));
        assert_eq!(image("4711:12"), Ok((4711, 12, vec![12])));
        assert!(image("nobody").is_err());
        assert!(image("app:nogroup").is_err());
    }

    #[test]
    fn the_pod_wins_over_the_image() {
        let wanted = Wanted { user: Some(7), image: Some("app:web"), supplemental: &[9, 9], ..Wanted::default() };
        assert_eq!(resolve(wanted), Ok((7, 0, vec![0, 9])));
        assert_eq!(resolve(Wanted { group: Some(5), ..wanted }), Ok((7, 5, vec![5, 9])));
        assert!(resolve(Wanted { user: Some(-1), ..wanted }).is_err());
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let wanted = Wanted { must_not_be_root: true, ..Wanted::default() };
        assert!(resolve(wanted).unwrap_err().contains("runAsNonRoot"));
        assert!(resolve(Wanted { image: Some("app"), ..wanted }).is_ok());
        assert!(resolve(Wanted { user: Some(1), ..wanted }).is_ok());
    }

    #[test]
    fn account_files_are_read_inside_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(dir.path().join("outside"), "evil:x:0:0::/:\n").unwrap();
        std::os::unix::fs::symlink("../../outside", root.join("etc/passwd")).unwrap();
        let accounts = Accounts::read(&root).unwrap();
        assert_eq!(accounts.passwd, "");
    }
}
