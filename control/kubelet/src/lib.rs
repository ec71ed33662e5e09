//! The node agent of the bundled cluster: pod lifecycle, probes, volumes, logs.
