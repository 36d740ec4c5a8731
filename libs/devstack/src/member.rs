//! A process of a system, be it a part or a service: what is the same to whoever keeps them running.

use std::path::Path;
use std::process::ExitStatus;

use anyhow::Result;

use crate::{Part, ServiceProcess};

/// A process of either sort.
#[derive(Debug, Clone, Copy)]
pub enum Member<'a> {
    /// A part.
    Part(&'a Part),
    /// A service.
    Service(&'a ServiceProcess),
}

impl<'a> Member<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        match self {
            Self::Part(part) => part.name(),
            Self::Service(service) => service.name(),
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        match self {
            Self::Part(part) => part.port(),
            Self::Service(service) => service.port(),
        }
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Part(part) => part.pid(),
            Self::Service(service) => service.pid(),
        }
    }

    /// Where its output goes.
    pub fn log(&self) -> &'a Path {
        match self {
            Self::Part(part) => part.log(),
            Self::Service(service) => service.log(),
        }
    }

    /// How it ended, if it was started and has.
    pub fn exited(&self) -> Option<ExitStatus> {
        match self {
            Self::Part(part) => part.exited(),
            Self::Service(service) => service.exited(),
        }
    }

    /// Whether it is a service.
    pub fn is_service(&self) -> bool {
        matches!(self, Self::Service(_))
    }

    /// Starts it again after it has ended. A part is ready when this returns; a service says itself
    /// when it is.
    pub async fn start_again(&self) -> Result<()> {
        match self {
            Self::Part(part) => part.start_again().await,
            Self::Service(service) => service.start(),
        }
    }

    /// Kills it with SIGKILL, and its children.
    pub async fn kill9(&self) -> Result<()> {
        match self {
            Self::Part(part) => part.kill9().await,
            Self::Service(service) => service.kill9().await,
        }
    }

    /// Ends a pause.
    pub fn resume(&self) -> Result<()> {
        match self {
            Self::Part(part) => part.resume(),
            Self::Service(service) => service.resume(),
        }
    }
}
