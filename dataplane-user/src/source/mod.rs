//! Where Services come from: compact values of our own, and the changes to them.
//!
//! No Kubernetes object outlives its conversion: what the node does not need is never kept.

pub mod apiserver;
mod convert;
pub mod file;

use std::net::IpAddr;
use std::sync::Arc;

use dataplane_plan::{Protocol, ServiceName};

/// A Service that this agent serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    pub cluster_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty if it has no name.
    pub name: Arc<str>,
    pub port: u16,
    pub protocol: Protocol,
}

/// One EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceSpec {
    pub service: ServiceName,
    pub ports: Vec<ServicePort>,
    pub endpoints: Vec<SliceEndpoint>,
}

/// One endpoint of a slice; it has all of the slice's ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    pub address: IpAddr,
    /// It runs on this agent's node.
    pub local: bool,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

/// This agent's own Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSpec {
    /// It is being deleted: load balancers should stop sending traffic here.
    pub deleting: bool,
}

/// A slice's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// A change to one kind of object.
#[derive(Clone, Debug)]
pub enum Delta<K, V> {
    /// The complete set, after a (re)list. Whatever is not in it is gone.
    Replace(Vec<(K, V)>),
    Put(K, V),
    Remove(K),
}

/// A change from a source.
#[derive(Clone, Debug)]
pub enum Change {
    Services(Delta<ServiceName, ServiceSpec>),
    Slices(Delta<SliceName, SliceSpec>),
    Node(Delta<Arc<str>, NodeSpec>),
}
