//! What the kernel programs decide, over plain values: tested on the host, compiled into the programs.
//!
//! *Owns* choices: which backend, which answer, what a header says. *Does not own* maps, contexts, helpers or counters
//! (the programs) nor shapes (`dataplane-abi`). Everything is generic over the address family and always inlined, so
//! that each program gets its own copy for its own family. Time and randomness are arguments.

#![no_std]
#![forbid(unsafe_code)]

pub mod balance;
pub mod checksum;
pub mod flow;
pub mod packet;
pub mod peer;
pub mod refusal;
pub mod select;
pub mod tuple;
