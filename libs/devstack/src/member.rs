//! A process of a system, be it a part or a service: what is the same to whoever keeps them running.

use std::path::Path;
use std::process::ExitStatus;

use anyhow::Result;

use crate::{Companion, Part, ServiceProcess};

/// A process of any sort.
#[derive(Debug, Clone, Copy)]
pub enum Member<'a> {
    /// A part.
    Part(&'a Part),
    /// A service.
    Service(&'a ServiceProcess),
    /// A program beside the saga.
    Companion(&'a Companion),
}

impl<'a> Member<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        match self {
            Self::Part(part) => part.name(),
            Self::Service(service) => service.name(),
            Self::Companion(program) => program.name(),
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        match self {
            Self::Part(part) => part.port(),
            Self::Service(service) => service.port(),
            Self::Companion(program) => program.port(),
        }
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Part(part) => part.pid(),
            Self::Service(service) => service.pid(),
            Self::Companion(program) => program.pid(),
        }
    }

    /// Where its output goes.
    pub fn log(&self) -> &'a Path {
        match self {
            Self::Part(part) => part.log(),
            Self::Service(service) => service.log(),
            Self::Companion(program) => program.log(),
        }
    }

    /// How it ended, if it was started and has.
    pub fn exited(&self) -> Option<ExitStatus> {
        match self {
            Self::Part(part) => part.exited(),
            Self::Service(service) => service.exited(),
            Self::Companion(program) => program.exited(),
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
            Self::Companion(program) => program.start(),
        }
    }

    /// Kills it with SIGKILL, and its children.
    pub async fn kill9(&self) -> Result<()> {
        match self {
            Self::Part(part) => part.kill9().await,
            Self::Service(service) => service.kill9().await,
            Self::Companion(program) => program.kill9().await,
        }
    }

    /// Ends a pause.
    pub fn resume(&self) -> Result<()> {
        match self {
            Self::Part(part) => part.resume(),
            Self::Service(service) => service.resume(),
            Self::Companion(program) => program.resume(),
        }
    }
}
