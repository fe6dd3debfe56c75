//! How good mirrors are: latency, throughput, and how new their index is.
//!
//! Each mirror is asked for the same index. First all at the same time, for the first byte; then
//! the quickest few one after the other, so that they do not share the line, for all of it.

use super::http::{Ask, HttpError, Session};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::cmp::Ordering;
use std::time::{Duration, Instant};

/// How many mirrors are measured to the end. The rest is slower by the first byte already.
const MEASURED: usize = 8;

/// A mirror is behind if its index was made so much earlier than the newest one, in seconds.
/// Mirrors fetch every hour or so; a day is more than that.
const BEHIND: u64 = 24 * 3600;

/// What one mirror showed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Time from the question to the first byte of the answer.
    pub latency: Option<Duration>,
    /// Bytes a second, after the first byte.
    pub throughput: Option<f64>,
    /// When its index was made, in seconds since 1970.
    pub made: Option<u64>,
    /// Why it cannot be used.
    pub failure: Option<String>,
}

/// Measures mirrors by the addresses of their indexes. `check` verifies an index and returns when
/// it was made.
pub fn measure(
    session: &Session,
    urls: &[String],
    check: &mut dyn FnMut(&[u8]) -> Result<u64, String>,
) -> Vec<Measured> {
    let mut measured = vec![Measured::default(); urls.len()];
    let ask = Ask {
        fresh: true,
        mirrors: true,
        ..Ask::default()
    };
    session.runtime.block_on(async {
        let mut first: FuturesUnordered<_> = urls
            .iter()
            .enumerate()
            .map(async |(number, url)| {
                let began = Instant::now();
                let opened = session.open(url, &ask).await;
                (number, opened.map(|_| began.elapsed()))
            })
            .collect();
        while let Some((number, latency)) = first.next().await {
            match latency {
                Ok(latency) => measured[number].latency = Some(latency),
                Err(error) => measured[number].failure = Some(error.to_string()),
            }
        }
        for number in rank(&measured).into_iter().take(MEASURED) {
            if measured[number].failure.is_some() {
                continue;
            }
            match whole(session, &urls[number], &ask, check).await {
                Ok((latency, throughput, made)) => {
                    let one = &mut measured[number];
                    // The second question finds a connection open: that is what most have.
                    one.latency = one.latency.map(|first| first.min(latency));
                    (one.throughput, one.made) = (throughput, Some(made));
                }
                Err(error) => measured[number].failure = Some(error.to_string()),
            }
        }
    });
    measured
}

async fn whole(
    session: &Session,
    url: &str,
    ask: &Ask,
    check: &mut dyn FnMut(&[u8]) -> Result<u64, String>,
) -> Result<(Duration, Option<f64>, u64), HttpError> {
    let began = Instant::now();
    let mut answer = session.open(url, ask).await?;
    let latency = began.elapsed();
    let (began, mut bytes) = (Instant::now(), Vec::new());
    while let Some(chunk) = answer.chunk().await? {
        let limit = session.limits().index_file;
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(HttpError::too_large("index file", limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    let took = began.elapsed().as_secs_f64();
    let throughput = (took > 0.0).then(|| bytes.len() as f64 / took);
    let made = check(&bytes).map_err(HttpError::elsewhere)?;
    Ok((latency, throughput, made))
}

/// Returns the numbers of mirrors, the best first: those that work before those that do not,
/// those that are current before those that are behind, then by the time that a usual installation
/// takes: ten round trips and 20 MB.
pub fn rank(measured: &[Measured]) -> Vec<usize> {
    let newest = measured
        .iter()
        .filter_map(|one| one.made)
        .max()
        .unwrap_or(0);
    let key = |one: &Measured| {
        let behind = one.made.is_some_and(|made| made + BEHIND < newest);
        let latency = one
            .latency
            .map_or(f64::MAX, |latency| latency.as_secs_f64());
        let transfer = one.throughput.map_or(0.0, |rate| 20e6 / rate.max(1.0));
        // Who was not measured to the end comes after who was.
        let unmeasured = one.throughput.is_none();
        (
            one.failure.is_some(),
            behind,
            unmeasured,
            latency * 10.0 + transfer,
        )
    };
    let mut order: Vec<usize> = (0..measured.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (key(&measured[*a]), key(&measured[*b]));
        let flags = (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2));
        flags.then(a.3.partial_cmp(&b.3).unwrap_or(Ordering::Equal))
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_mirror_is_current_and_quick() {
        let one = |latency: u64, rate: f64, made: u64, fails: bool| Measured {
            latency: Some(Duration::from_millis(latency)),
            throughput: Some(rate),
            made: Some(made),
            failure: fails.then(|| "HTTP 503".to_owned()),
        };
        let day = 24 * 3600;
        let all = [
            one(1, 9e9, 10 * day, true),
            one(1, 9e9, 7 * day, false),
            one(100, 1e6, 10 * day, false),
            one(200, 1e8, 10 * day - 5, false),
            Measured {
                throughput: None,
                made: None,
                ..one(1, 0.0, 0, false)
            },
        ];
        assert_eq!(rank(&all), [3, 2, 4, 1, 0]);
    }
}
