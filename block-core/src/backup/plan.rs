//! What a backup shall copy and what becomes of its bitmap: the rules of modes, without any I/O.

use crate::bitmap::{BitmapHandle, BitmapMode, BitmapUse};
use crate::error::{BlockError, ErrorKind, Result};
use crate::event::AutoMode;
use crate::graph::Node;
use crate::job::ErrorAction;

/// What a backup copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SyncMode {
    /// What the top image holds.
    Top,
    /// Everything.
    Full,
    /// Only what is about to be overwritten.
    None,
    /// What a bitmap says, consuming it on success.
    Incremental,
    /// What a bitmap says.
    Bitmap,
    /// Incremental where the bitmap allows it, else full.
    Auto,
}

impl SyncMode {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Top => "top",
            Self::Full => "full",
            Self::None => "none",
            Self::Incremental => "incremental",
            Self::Bitmap => "bitmap",
            Self::Auto => "auto",
        }
    }
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// Fail.
    #[default]
    Report,
    /// Try again.
    Ignore,
    /// Pause for lack of space, else fail. Also what `auto` means for jobs.
    Enospc,
    /// Pause.
    Stop,
}

impl OnError {
    /// What is done about this error.
    pub fn action(self, error: &BlockError) -> ErrorAction {
        match self {
            Self::Report => ErrorAction::Report,
            Self::Ignore => ErrorAction::Ignore,
            Self::Stop => ErrorAction::Stop,
            Self::Enospc if error.errno() == 28 => ErrorAction::Stop,
            Self::Enospc => ErrorAction::Report,
        }
    }
}

/// What was decided.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Never [`SyncMode::Auto`].
    pub sync: SyncMode,
    /// The bitmap, and what becomes of it.
    pub bitmap: Option<(BitmapHandle, BitmapMode)>,
    /// For `auto`: the mode taken, and why.
    pub auto: Option<(AutoMode, String)>,
}

fn invalid(text: impl Into<String>) -> BlockError {
    BlockError::new(ErrorKind::Invalid, text)
}

/// Decides what to copy. The order of the checks is that in which clients know them.
pub fn decide(source: &Node, sync: SyncMode, bitmap: Option<&str>, mode: Option<BitmapMode>) -> Result<Plan> {
    if sync == SyncMode::Auto {
        return decide_auto(source, bitmap, mode);
    }
    if matches!(sync, SyncMode::Incremental | SyncMode::Bitmap) && bitmap.is_none() {
        return Err(invalid(format!(
            "must provide a valid bitmap name for '{}' sync mode",
            sync.name()
        )));
    }
    let (sync, mode) = if sync == SyncMode::Incremental {
        if mode.is_some_and(|mode| mode != BitmapMode::OnSuccess) {
            return Err(invalid(format!(
                "Bitmap sync mode must be 'on-success' when using sync mode '{}'",
                sync.name()
            )));
        }
        (SyncMode::Bitmap, Some(BitmapMode::OnSuccess))
    } else {
        (sync, mode)
    };
    let bitmap = match bitmap {
        None => None,
        Some(name) => {
            let bitmap = source.bitmaps().find(name).ok_or_else(|| {
                BlockError::new(ErrorKind::NotFound, format!("Bitmap '{name}' could not be found"))
            })?;
            let Some(mode) = mode else {
                return Err(invalid("Bitmap sync mode must be given when providing a bitmap"));
            };
            bitmap.check(if mode == BitmapMode::Never {
                BitmapUse::Read
            } else {
                BitmapUse::Change
            })?;
            Some((bitmap, mode))
        }
    };
    if bitmap.is_none() && mode.is_some() {
        return Err(invalid("Cannot specify bitmap sync mode without a bitmap"));
    }
    if let Some((_, mode)) = &bitmap {
        if sync == SyncMode::None {
            return Err(invalid(
                "sync mode 'none' does not produce meaningful bitmap outputs",
            ));
        }
        if *mode == BitmapMode::Never && sync != SyncMode::Bitmap {
            return Err(invalid(format!(
                "Bitmap sync mode 'never' has no meaningful effect when combined with sync mode '{}'",
                sync.name()
            )));
        }
    }
    Ok(Plan {
        sync,
        bitmap,
        auto: None,
    })
}

fn decide_auto(source: &Node, bitmap: Option<&str>, mode: Option<BitmapMode>) -> Result<Plan> {
    if mode.is_some_and(|mode| mode != BitmapMode::OnSuccess) {
        return Err(invalid(
            "Bitmap sync mode must be 'on-success' when using sync mode 'auto'",
        ));
    }
    if mode.is_some() && bitmap.is_none() {
        return Err(invalid("Cannot specify bitmap sync mode without a bitmap"));
    }
    let taken = |mode: AutoMode, reason: String| Some((mode, reason));
    let Some(name) = bitmap else {
        let auto = taken(AutoMode::Full, "no bitmap was given".to_owned());
        return Ok(Plan {
            sync: SyncMode::Full,
            bitmap: None,
            auto,
        });
    };
    let Some(bitmap) = source.bitmaps().find(name) else {
        let auto = taken(AutoMode::Full, format!("there is no bitmap '{name}'"));
        return Ok(Plan {
            sync: SyncMode::Full,
            bitmap: None,
            auto,
        });
    };
    let recording = bitmap.info().is_some_and(|info| info.recording);
    match bitmap.check(BitmapUse::Change) {
        Ok(()) if recording => {
            let auto = taken(
                AutoMode::Incremental,
                format!("bitmap '{name}' holds every change"),
            );
            Ok(Plan {
                sync: SyncMode::Bitmap,
                bitmap: Some((bitmap, BitmapMode::OnSuccess)),
                auto,
            })
        }
        Ok(()) => {
            let auto = taken(AutoMode::Full, format!("bitmap '{name}' does not record"));
            Ok(Plan {
                sync: SyncMode::Full,
                bitmap: None,
                auto,
            })
        }
        Err(error) => {
            let auto = taken(AutoMode::Full, error.to_string());
            Ok(Plan {
                sync: SyncMode::Full,
                bitmap: None,
                auto,
            })
        }
    }
}
