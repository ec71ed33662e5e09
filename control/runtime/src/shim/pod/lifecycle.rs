//! A container's life: created, started, stopped, ended, removed.

use std::fs;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::managed::Managed;
use super::signals::send_signal;
use super::{Caller, Pod, Told, not_running};
use crate::container::{Container, ContainerState};
use crate::error::{FileError, chain};
use crate::layout::{RootDir, is_plain_name, remove_tree, write_record};
use crate::protocol::{CreateContainer, FromShim, Refusal, Reply};
use crate::shim::launch::Site;
use crate::shim::log::Log;
use crate::shim::reactor::Reactor;
use crate::shim::session::With;
use crate::spec::PidNamespace;
use crate::{RuntimeError, rootfs};

/// The exit code of a container whose process could not be started.
const NOT_STARTED: i32 = 128;
/// How long killed processes may take to leave a cgroup.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

impl Pod {
    pub(super) fn create(&mut self, request: CreateContainer) -> Result<Reply, Refusal> {
        if self.shutdown.is_some() {
            return Err(Refusal::Invalid("the sandbox is ending".to_owned()));
        }
        if !is_plain_name(&request.id) || self.containers.contains_key(&request.id) {
            return Err(Refusal::Invalid(format!("container identifier {} is taken or not valid", request.id)));
        }
        let (id, spec) = (request.id.clone(), &request.spec);
        let record = Container {
            id: id.clone(),
            sandbox_id: self.sandbox.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            image: spec.image.clone(),
            image_id: request.image.id.clone(),
            state: ContainerState::Created,
            pid: None,
            created_at: Timestamp::now(),
            started_at: None,
            finished_at: None,
            exit_code: None,
            reason: None,
            message: None,
            log_path: spec.log_path.clone(),
            labels: spec.labels.clone(),
        };
        self.prepare(&record).map_err(|error| Refusal::Failed(chain(&RuntimeError::from(error))))?;
        self.told.push(Told::News(FromShim::Changed(Box::new(record.clone()))));
        self.containers.insert(id, Managed::new(record, request));
        Ok(Reply::Done)
    }

    fn prepare(&self, record: &Container) -> Result<(), FileError> {
        use crate::error::IoContext as _;
        let dir = self.site.dir.container(&record.id);
        fs::create_dir_all(dir.path()).at("cannot create", dir.path())?;
        rootfs::create(&RootDir::new(&self.site.state_dir, &record.id))?;
        write_record(&dir.record(), record)
    }

    pub(super) fn start(&mut self, id: &str, runtime: i32, reactor: &mut Reactor) -> Result<Reply, Refusal> {
        let cgroup = self.cgroup_of(id);
        let pid_namespace = self.pid_namespace_for(id)?;
        let managed = self.containers.get_mut(id).ok_or(Refusal::NoContainer)?;
        if managed.record.state != ContainerState::Created {
            return Err(Refusal::Invalid(format!("container {id} has been started before")));
        }
        let log = Log::open(&managed.request.spec.log_path)
            .map_err(|error| Refusal::Failed(format!("cannot open {}: {error}", managed.record.log_path.display())))?;
        let now = Timestamp::now();
        let result = self.site.launch(&managed.request, &cgroup, runtime, pid_namespace);
        let result = match result {
            Ok(launched) => {
                managed.record.started_at = Some(now);
                managed.run(launched, log, reactor).map_err(|error| Refusal::Failed(error.to_string()))
            }
            Err(failure) => {
                managed.record.started_at = Some(now);
                managed.record.finish(NOT_STARTED, "StartError", Some(failure.message.clone()));
                self.site.clean_libcontainer(id, &cgroup);
                Err(Refusal::CannotRun(failure.message))
            }
        };
        self.publish(id);
        result.map(|()| Reply::Done)
    }

    /// The pod's own arrangement, or that of the container whose processes this one is to see.
    fn pid_namespace_for(&self, id: &str) -> Result<PidNamespace, Refusal> {
        let target = self.containers.get(id).and_then(|managed| managed.request.spec.processes_of.as_deref());
        match (target, &self.site.pid_namespace) {
            (Some(target), PidNamespace::Own) => {
                let pid = self.containers.get(target).and_then(|managed| managed.record.pid);
                let pid = pid.ok_or_else(|| not_running(target))?;
                Ok(PidNamespace::Shared(format!("/proc/{pid}/ns/pid").into()))
            }
            (_, namespace) => Ok(namespace.clone()),
        }
    }

    pub(super) fn stop(&mut self, id: &str, grace: Duration, caller: Caller) -> Option<Result<Reply, Refusal>> {
        let Some(managed) = self.containers.get_mut(id) else { return Some(Err(Refusal::NoContainer)) };
        let Some(pid) = managed.record.pid else { return Some(Ok(Reply::Done)) };
        managed.stopping.push(caller);
        let deadline = Instant::now() + grace;
        // A second stop may only hurry the end.
        managed.kill_at = Some(managed.kill_at.map_or(deadline, |earlier| earlier.min(deadline)));
        if !grace.is_zero() {
            send_signal(pid, managed.stop_signal());
        }
        self.kill_overdue(Instant::now());
        None
    }

    pub(super) fn remove(&mut self, id: &str, caller: Caller, reactor: &mut Reactor) -> Option<Result<Reply, Refusal>> {
        let Some(managed) = self.containers.get_mut(id) else { return Some(Err(Refusal::NoContainer)) };
        if managed.record.is_running() {
            managed.removing.push(caller);
            managed.kill_at = Some(Instant::now());
            self.kill_overdue(Instant::now());
            return None;
        }
        Some(self.remove_ended(id, reactor))
    }

    fn remove_ended(&mut self, id: &str, reactor: &mut Reactor) -> Result<Reply, Refusal> {
        let cgroup = self.cgroup_of(id);
        self.site.clean_libcontainer(id, &cgroup);
        if let Some(mut managed) = self.containers.remove(id) {
            managed.close_outputs(reactor);
        }
        let removed = remove_tree(self.site.dir.container(id).path());
        self.told.push(Told::News(FromShim::Removed { id: id.to_owned() }));
        removed.map(|()| Reply::Done).map_err(|error| Refusal::Failed(chain(&RuntimeError::from(error))))
    }

    pub(super) fn container_ended(&mut self, id: &str, exit_code: i32, reactor: &mut Reactor) {
        let cgroup = self.cgroup_of(id);
        let Some(managed) = self.containers.get_mut(id) else { return };
        let out_of_memory = exit_code != 0 && self.site.cgroups.oom_kills(&cgroup) > 0;
        let reason = match exit_code {
            0 => "Completed",
            _ if out_of_memory => "OOMKilled",
            _ => "Error",
        };
        managed.record.finish(exit_code, reason, None);
        managed.kill_at = None;
        // With a shared PID namespace the rest of the container lives on unless it is killed.
        self.site.cgroups.kill_all(&cgroup);
        managed.drain(reactor);
        let stopping = std::mem::take(&mut managed.stopping);
        let removing = std::mem::take(&mut managed.removing);
        self.publish(id);
        self.end_sessions(exit_code, |with| matches!(with, With::Container(its) if its == id));
        self.told.extend(stopping.into_iter().map(|caller| Told::Answer(caller, Ok(Reply::Done))));
        if !removing.is_empty() {
            let result = self.remove_ended(id, reactor);
            self.told.extend(removing.into_iter().map(|caller| Told::Answer(caller, result.clone())));
        }
    }
}

impl Site {
    /// Removes what libcontainer knows of a container that has ended, and its cgroups.
    fn clean_libcontainer(&self, id: &str, cgroup: &str) {
        self.cgroups.drain(cgroup, DRAIN_PATIENCE);
        for result in [self.cgroups.remove(cgroup), remove_tree(&self.dir.libcontainer().join(id))] {
            if let Err(error) = result {
                tracing::warn!(error = %chain(&RuntimeError::from(error)), container = id, "cannot clean up");
            }
        }
    }
}
