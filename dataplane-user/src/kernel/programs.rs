//! One generation of programs: loaded, its tail-call array filled and pinned.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::ProgramArray;
use aya::programs::{CgroupSockAddr, ProgramError, ProgramFd, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use dataplane_abi::{MAPS, calls};

use super::link::SocketHook;
use super::pins::{self, Pins, map_path};
use super::{KernelError, MapSizes, objects};

/// The programs that links run, and the number of their generation.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) generation: u64,
    sockets: Vec<(SocketHook, ProgramFd)>,
    pod_from: ProgramFd,
    pod_to: ProgramFd,
}

/// The tail-called programs by their index.
const TAIL_CALLS: [(u32, &str); 8] = [
    (calls::FROM_POD4, "pod_from4"),
    (calls::FROM_POD6, "pod_from6"),
    (calls::TO_POD4, "pod_to4"),
    (calls::TO_POD6, "pod_to6"),
    (calls::NEW_FLOW4, "new_flow4"),
    (calls::NEW_FLOW6, "new_flow6"),
    (calls::REFUSE4, "refuse4"),
    (calls::REFUSE6, "refuse6"),
];

impl Programs {
    /// Loads every program; pinned maps are adopted, missing ones made and pinned.
    pub(super) fn load(pins: &Pins, sizes: &MapSizes) -> Result<Self, KernelError> {
        objects::check()?;
        let mut socket = load_object("socket", objects::SOCKET, pins, sizes)?;
        let sockets = SocketHook::ALL
            .iter()
            .map(|hook| Ok((*hook, load_socket(&mut socket, hook.program())?)))
            .collect::<Result<_, KernelError>>()?;
        let mut pod = load_object("pod", objects::POD, pins, sizes)?;
        let generation = pins.next_generation()?;
        let folder = pins.generation(generation);
        fs::create_dir_all(&folder).map_err(|error| pins::file("make", &folder, error))?;
        let pod_from = load_packet(&mut pod, "pod_from", pins, generation)?;
        let pod_to = load_packet(&mut pod, "pod_to", pins, generation)?;
        fill_calls(&mut pod, pins, generation)?;
        Ok(Self { generation, sockets, pod_from, pod_to })
    }

    /// The socket programs with their hooks.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (SocketHook, BorrowedFd<'_>)> {
        self.sockets.iter().map(|(hook, program)| (*hook, program.as_fd()))
    }

    /// The program for packets from pods (ingress of the host side).
    pub(super) fn pod_from(&self) -> BorrowedFd<'_> {
        self.pod_from.as_fd()
    }

    /// The program for packets to pods (egress of the host side).
    pub(super) fn pod_to(&self) -> BorrowedFd<'_> {
        self.pod_to.as_fd()
    }
}

fn load_object(name: &'static str, bytes: &[u8], pins: &Pins, sizes: &MapSizes) -> Result<Ebpf, KernelError> {
    let mut loader = EbpfLoader::new();
    for map in MAPS {
        loader.map_pin_path(map.name, map_path(pins.folder(), map));
        // Socket storage has no size.
        if map.entries_default > 0 {
            loader.map_max_entries(map.name, sizes.of(map));
        }
    }
    loader.load(bytes).map_err(|source| KernelError::Object { object: name, source: Box::new(source) })
}

fn load_socket(object: &mut Ebpf, name: &str) -> Result<ProgramFd, KernelError> {
    let load = |object: &mut Ebpf| -> Result<ProgramFd, ProgramError> {
        let program: &mut CgroupSockAddr = object.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
        program.load()?;
        Ok(program.fd()?.try_clone()?)
    };
    load(object).map_err(|source| refused(name, source))
}

/// Loads a packet program and pins it with its generation, so that a person can see what the links run.
fn load_packet(object: &mut Ebpf, name: &str, pins: &Pins, generation: u64) -> Result<ProgramFd, KernelError> {
    let load = |object: &mut Ebpf| -> Result<ProgramFd, ProgramError> {
        let program: &mut SchedClassifier = object.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?;
        program.load()?;
        program
            .pin(pins.generation(generation).join(name))
            .map_err(|error| ProgramError::IOError(std::io::Error::other(error)))?;
        Ok(program.fd()?.try_clone()?)
    };
    load(object).map_err(|source| refused(name, source))
}

/// Fills the generation's tail-call array. It must be pinned: the kernel empties an array that only programs hold.
fn fill_calls(object: &mut Ebpf, pins: &Pins, generation: u64) -> Result<(), KernelError> {
    let failed = |source| KernelError::Map { action: "fill", map: calls::NAME, source: Box::new(source) };
    let programs = TAIL_CALLS
        .iter()
        .map(|(index, name)| Ok((*index, load_packet(object, name, pins, generation)?)))
        .collect::<Result<Vec<_>, KernelError>>()?;
    let map = object
        .take_map(calls::NAME)
        .ok_or_else(|| failed(aya::maps::MapError::InvalidName { name: calls::NAME.to_owned() }))?;
    map.pin(pins.generation(generation).join(calls::NAME))
        .map_err(|error| failed(aya::maps::MapError::PinError { name: None, error }))?;
    let mut array = ProgramArray::try_from(map).map_err(failed)?;
    programs.iter().try_for_each(|(index, program)| array.set(*index, program, 0)).map_err(failed)
}

fn refused(program: &str, source: ProgramError) -> KernelError {
    KernelError::Program { program: program.to_owned(), source: Box::new(source) }
}
