//! The server's log: to standard error, as text or JSON, and only what Keyward itself says.
//!
//! h2, hyper, tonic and reqwest print header values and frames at debug and trace level, so nothing that is not
//! Keyward's is ever written, whatever the filter says. The panic hook prints where, never what.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A filter that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The directives are malformed.
    #[error("log filter `{filter}`: {cause}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A log was installed before.
    #[error("a log is already installed")]
    Installed,
}

/// Installs the log for this process. `filter` as in `KEYWARD_LOG`, for example `info` or `keyward_server=trace`.
///
/// # Errors
/// A malformed filter, or a second call.
pub fn install(filter: &str, format: Format) -> Result<(), LogError> {
    subscriber(filter, format, io::stderr)?.try_init().map_err(|_| LogError::Installed)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic");
    }));
    Ok(())
}

/// The subscriber that [`install`] installs, with any writer; for tests.
///
/// # Errors
/// A malformed filter.
pub fn subscriber<W>(
    filter: &str,
    format: Format,
    writer: W,
) -> Result<impl tracing::Subscriber + Send + Sync + use<W>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| LogError::Filter { filter: filter.to_owned(), cause: error.to_string() })?;
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Text => tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false).boxed(),
        Format::Json => tracing_subscriber::fmt::layer().with_writer(writer).json().boxed(),
    };
    let own = FilterFn::new(|metadata| {
        let target = metadata.target();
        target == "keyward" || target.starts_with("keyward::") || target.starts_with("keyward_")
    });
    Ok(tracing_subscriber::registry().with(lines.with_filter(own).with_filter(filter)))
}

/// Log lines in memory, for tests that search them.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

// === impl Captured ===

impl Captured {
    /// Everything logged so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.lock().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Ok(mut captured) = self.0.lock() {
            captured.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Captured {
    type Writer = Captured;
    fn make_writer(&'w self) -> Captured {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_keyward_is_written_even_at_trace() {
        for format in [Format::Text, Format::Json] {
            let captured = Captured::default();
            let subscriber = subscriber("trace", format, captured.clone()).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                tracing::trace!(target: "h2::codec", "authorization: Bearer canary");
                tracing::error!(target: "hyper", "canary");
                tracing::error!(target: "keywardish", "canary");
                tracing::trace!(target: "keyward_server::check", "our own line");
            });
            let text = captured.text();
            assert!(text.contains("our own line"), "{text}");
            assert!(!text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn a_malformed_filter_is_named() {
        let error = subscriber("keyward=loud", Format::Text, Captured::default()).err().unwrap();
        assert!(error.to_string().starts_with("log filter `keyward=loud`"), "{error}");
    }
}
