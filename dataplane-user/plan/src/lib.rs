//! Pure planning: what the maps should hold (desired), what they hold (observed), and the ordered operations between.
