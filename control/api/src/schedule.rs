//! When a CronJob is due: five fields, a nickname such as `@daily`, or `@every` with a duration, in a time zone.

mod fields;

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

/// Why a schedule is not usable, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("expected exactly 5 fields, found {found}: [{text}]")]
    Fields { found: usize, text: String },
    #[error("{0}")]
    Pattern(String),
    #[error("unrecognized descriptor: {0}")]
    Nickname(String),
    #[error("failed to parse duration {text}: time: invalid duration {period:?}")]
    Every { text: String, period: String },
    #[error("unknown time zone {0}")]
    Zone(String),
}

/// A shorter period counts as this.
const PERIOD_MIN: SignedDuration = SignedDuration::from_secs(1);

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
        Ok(Self { pattern: Pattern::parse(text)?, zone })
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
            let invalid = || ScheduleError::Every { text: text.to_owned(), period: period.to_owned() };
            let nanoseconds = crate::duration::parse(period).ok_or_else(invalid)?;
            return Ok(Self::Every(SignedDuration::from_nanos(nanoseconds).max(PERIOD_MIN)));
        }
        let written = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            text if text.starts_with('@') => return Err(ScheduleError::Nickname(text.to_owned())),
            text => text,
        };
        let fields: Vec<&str> = written.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(ScheduleError::Fields { found: fields.len(), text: fields.join(" ") });
        };
        let plain = fields::plain([minute, hour, day, month, weekday]).map_err(ScheduleError::Pattern)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&plain).map_err(|error| ScheduleError::Pattern(error.to_string()))?;
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
        assert_eq!(next("7/10 * ? * *", None, now), "2026-01-01T00:07:00Z");
        assert_eq!(next("0 0 1 * *", None, now), "2026-02-01T00:00:00Z");
        assert_eq!(next("@hourly", None, now), "2026-01-01T01:00:00Z");
        assert_eq!(next("@weekly", None, now), "2026-01-04T00:00:00Z");
        assert_eq!(next("@every 90s", None, now), "2026-01-01T00:06:30Z");
        assert_eq!(next("@every 0s", None, now), "2026-01-01T00:05:01Z");
        assert_eq!(next("0 9 * * MON-FRI", None, "2026-01-02T10:00:00Z"), "2026-01-05T09:00:00Z");
        // Either day field is enough when both are given.
        assert_eq!(next("0 0 13 * 5", None, "2026-01-01T00:00:00Z"), "2026-01-02T00:00:00Z");
        assert_eq!(next("0 0 * * 5", None, "2026-01-03T00:00:00Z"), "2026-01-09T00:00:00Z");
    }

    #[test]
    fn what_is_not_a_schedule_is_refused_in_upstreams_words() {
        let cases = [
            ("* * *  *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
            ("61 * * * *", "end of range (61) above maximum (59): 61"),
            ("* 5-3 * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("* * L * *", "failed to parse int from L: strconv.Atoi: parsing \"L\": invalid syntax"),
            ("-1 * * * *", "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/2/3 * * * *", "too many slashes: */2/3"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ];
        for (text, expected) in cases {
            assert_eq!(Schedule::parse(text, None).expect_err(text).to_string(), expected, "{text}");
        }
        assert_eq!(
            Schedule::parse("* * * * *", Some("Mars/Base")).expect_err("zone").to_string(),
            "unknown time zone Mars/Base"
        );
    }
}
