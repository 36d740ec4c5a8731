//! What the machine would allow: one part of the work alone, with the rest of the stack idle
//! beside it.

mod http;
mod kafka;
mod sql;

use anyhow::Result;
use ordersaga_figures::{Process, Run};
use ordersaga_runtime::clock;

use crate::run::Length;
use crate::sampler::{Group, Sampler};
use crate::system::System;

pub(crate) use sql::Databases;

/// One of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Sql,
    Kafka,
    Http,
}

impl Limit {
    /// All, in the order they are shown.
    pub(crate) const ALL: [Self; 3] = [Self::Sql, Self::Kafka, Self::Http];

    /// As `--only` takes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sql => "limit-sql",
            Self::Kafka => "limit-kafka",
            Self::Http => "limit-http",
        }
    }

    /// For people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Sql => "SQL alone, batches of 500, one connection per database",
            Self::Kafka => "broker alone, the same records produced once and consumed twice",
            Self::Http => "HTTP alone, creates answered from memory, 256 connections",
        }
    }

    /// One run of it.
    pub(crate) async fn run(self, bench: &Bench<'_>) -> Result<Run> {
        match self {
            Self::Sql => sql::run(bench).await,
            Self::Kafka => kafka::run(bench).await,
            Self::Http => http::run(bench).await,
        }
    }
}

/// What a limit is measured with.
pub(crate) struct Bench<'a> {
    pub(crate) system: &'a System,
    pub(crate) binaries: &'a std::path::Path,
    pub(crate) sql: &'a Databases,
    pub(crate) length: Length,
}

/// Takes what some processes and this one use until it is asked.
struct Meter {
    groups: Vec<Group>,
    sampler: Sampler,
    begin: i64,
}

impl Meter {
    /// Begins now.
    fn start(mut groups: Vec<Group>) -> Self {
        groups.push(Group::own());
        let sampler = Sampler::start(groups.clone());
        Self { groups, sampler, begin: clock::now().timestamp_micros() }
    }

    /// A run of so many orders that ends now.
    fn run(self, orders: u64) -> Result<Run> {
        let end = clock::now().timestamp_micros();
        let samples = self.sampler.stop()?;
        let seconds = (end - self.begin) as f64 / 1e6;
        let processes = self.groups.into_iter().enumerate().map(|(at, group)| Process {
            name: group.name,
            cpu_seconds: samples.cpu_seconds(at, self.begin, end),
            resident_peak_bytes: samples.resident_peak(at),
            ..Process::default()
        });
        Ok(Run {
            seconds,
            orders,
            orders_per_second: orders as f64 / seconds,
            all_orders: orders,
            processes: processes.collect(),
            ..Run::default()
        })
    }
}

/// The groups of the system whose names begin so.
fn groups(system: &System, begin: &str) -> Vec<Group> {
    system.groups().into_iter().filter(|group| group.name.starts_with(begin)).collect()
}
