//! The routing table as a value: compile rules once, find the rule of a request.
