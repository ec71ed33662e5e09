//! When a CronJob is due: five fields, a nickname such as `@daily`, or `@every` with a duration, in a time zone.

use std::str::FromStr;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A schedule that has been understood.
#[derive(Debug)]
pub struct Schedule {
    pattern: Pattern,
    zone: TimeZone,
}

#[derive(Debug)]
enum Pattern {
    Fields(Box<Cron>),
    Every(SignedDuration),
}

/// Why a schedule is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("expected exactly 5 fields, found {found}: [{text}]")]
    Fields { found: usize, text: String },
    #[error("{0}")]
    Pattern(String),
    #[error("failed to parse duration {0}")]
    Every(String),
    #[error("unknown time zone {0}")]
    Zone(String),
}

impl Schedule {
    /// Reads a schedule; without a zone it means UTC.
    ///
    /// # Errors
    /// If the pattern or the zone is not known.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.to_owned()))?,
        };
        Ok(Self { pattern: Pattern::parse(text.trim())?, zone })
    }

    /// The first time after this one; none if there never is one.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.pattern {
            Pattern::Every(period) => Timestamp::from_second(after.as_second()).ok()?.checked_add(*period).ok(),
            Pattern::Fields(cron) => {
                let found = cron.find_next_occurrence(&after.to_zoned(self.zone.clone()), false).ok()?;
                Some(found.timestamp())
            }
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, ScheduleError> {
        if let Some(period) = text.strip_prefix("@every ") {
            let invalid = || ScheduleError::Every(text.to_owned());
            let period = SignedDuration::from_str(period.trim()).map_err(|_| invalid())?;
            return if period.as_secs() > 0 { Ok(Self::Every(period)) } else { Err(invalid()) };
        }
        let found = text.split_whitespace().count();
        if !text.starts_with('@') && found != 5 {
            return Err(ScheduleError::Fields { found, text: text.to_owned() });
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| ScheduleError::Pattern(error.to_string()))?;
        Ok(Self::Fields(Box::new(cron)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, zone: Option<&str>, after: &str) -> String {
        let schedule = Schedule::parse(schedule, zone).expect("schedule");
        schedule.next(after.parse().expect("time")).expect("a next time").to_string()
    }

    #[test]
    fn the_next_time_is_strictly_later() {
        let now = "2026-01-01T00:05:00Z";
        assert_eq!(next("*/5 * * * *", None, now), "2026-01-01T00:10:00Z");
        assert_eq!(next("0 0 1 * *", None, now), "2026-02-01T00:00:00Z");
        assert_eq!(next("@hourly", None, now), "2026-01-01T01:00:00Z");
        assert_eq!(next("@every 90s", None, now), "2026-01-01T00:06:30Z");
        assert_eq!(next("0 9 * * MON-FRI", None, "2026-01-02T10:00:00Z"), "2026-01-05T09:00:00Z");
        // Either day field is enough when both are given.
        assert_eq!(next("0 0 13 * 5", None, "2026-01-01T00:00:00Z"), "2026-01-02T00:00:00Z");
    }

    #[test]
    fn what_is_not_a_schedule_is_refused() {
        for text in ["", "* * * *", "* * * * * *", "61 * * * *", "@sometimes", "@every 0s", "@every x"] {
            assert!(Schedule::parse(text, None).is_err(), "{text}");
        }
        assert_eq!(
            Schedule::parse("* * * * *", Some("Mars/Base")).expect_err("zone").to_string(),
            "unknown time zone Mars/Base"
        );
    }
}
