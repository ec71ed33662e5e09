//! The scheduler: filter and score as pure functions, binding through the API.
