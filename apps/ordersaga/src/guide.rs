//! What the help teaches: which commands there are for what, and how each is typed.

/// Commands of one purpose.
pub(crate) struct Group {
    /// What they are for.
    pub(crate) heading: &'static str,
    /// Each of them with its examples: what to type, and what that does.
    pub(crate) commands: &'static [(&'static str, &'static [Example])],
}

/// A command line and a few words about it.
pub(crate) type Example = (&'static str, &'static str);

/// All commands, in the order in which the help shows them.
pub(crate) const GROUPS: &[Group] = &[
    Group {
        heading: "Run",
        commands: &[
            (
                "up",
                &[
                    ("ordersaga up", "everything, until Ctrl-C"),
                    ("ordersaga up --detach", "in the background, until `down`"),
                    ("ordersaga up --ephemeral", "with data that go at the end"),
                    ("ordersaga up --playground", "with parts that the order desk may break"),
                ],
            ),
            (
                "down",
                &[
                    ("ordersaga down", "the stack of this folder, else the last one"),
                    ("ordersaga down --json", "for a script"),
                ],
            ),
            (
                "demo",
                &[
                    ("ordersaga demo", "the session of the README"),
                    ("ordersaga demo --json", "each step with its answer, for a script"),
                ],
            ),
            (
                "install",
                &[
                    ("ordersaga install", "what is missing to build and run"),
                    ("ordersaga install --tool", "the tool on PATH, completion, man pages"),
                    ("ordersaga install --tool --bin-dir /usr/local/bin", "for everybody"),
                ],
            ),
        ],
    },
    Group {
        heading: "See",
        commands: &[
            (
                "status",
                &[
                    ("ordersaga status", "processes, memory, addresses"),
                    ("ordersaga status --watch", "the same each second"),
                    ("ordersaga status --exit-when-ready", "once all is ready"),
                    ("ordersaga status --json", "for a script; exits with 1 unless all is ready"),
                ],
            ),
            (
                "logs",
                &[
                    ("ordersaga logs", "the last 50 lines of each process"),
                    ("ordersaga logs service-store --follow", "of one, as it grows"),
                    ("ordersaga logs broker --lines 200", "more of another"),
                    ("ordersaga logs --json", "each line as an object"),
                ],
            ),
            (
                "doctor",
                &[
                    ("ordersaga doctor", "this machine and the stack on it"),
                    ("ordersaga doctor --url https://status.example.org", "a system elsewhere"),
                    ("ordersaga doctor --json", "for a script"),
                    ("ordersaga doctor --bundle saga.tar.gz", "with logs, for somebody who helps"),
                ],
            ),
            (
                "top",
                &[
                    ("ordersaga top", "the system on this machine; ? shows the keys"),
                    ("ordersaga top --interval 5s", "asks it less often"),
                    ("ordersaga top --once", "prints one frame and ends"),
                ],
            ),
            (
                "order",
                &[
                    ("ordersaga order 17", "as each service, the topics and the cache have it"),
                    (
                        "ordersaga order 17 --follow",
                        "and each new fact, until nothing more is to come",
                    ),
                    ("ordersaga order 17 --json", "for a script"),
                ],
            ),
            (
                "wait",
                &[
                    ("ordersaga wait ready --timeout 2min", "until all three services are ready"),
                    ("ordersaga wait drained", "until nothing is in flight, as after a load"),
                    ("ordersaga wait order 17=SHIPPING", "until the store has reserved the stock"),
                ],
            ),
            (
                "events",
                &[
                    ("ordersaga events tail", "all events as they come, until Ctrl-C"),
                    ("ordersaga events tail --order 17 --since 5min", "those of one order"),
                    ("ordersaga events tail --fact CANCELLED --json", "for a script"),
                ],
            ),
            (
                "topics",
                &[
                    ("ordersaga topics describe", "as the broker has them"),
                    ("ordersaga topics describe --json", "for a script"),
                    ("ordersaga topics apply", "makes them what redpanda/topics.toml says"),
                ],
            ),
        ],
    },
    Group {
        heading: "Prove",
        commands: &[
            (
                "test",
                &[
                    ("ordersaga test", "everything, on parts of its own"),
                    ("ordersaga test --all", "the order desk and all clients, too"),
                    ("ordersaga test -p ordersaga-saga", "one package"),
                ],
            ),
            (
                "try",
                &[
                    ("ordersaga try cancel-race", "the cancellation may overtake its order"),
                    ("ordersaga try out-of-stock", "two clients want the last unit"),
                    ("ordersaga try duplicate", "a client repeats its request"),
                    ("ordersaga try late-store", "the store stands still meanwhile"),
                ],
            ),
            (
                "model",
                &[
                    ("ordersaga model", "all scenarios"),
                    ("ordersaga model --property I3", "one invariant"),
                    ("ordersaga model --explore", "step by step in a browser"),
                ],
            ),
            (
                "chaos",
                &[
                    ("ordersaga chaos", "20,000 orders, 40 faults"),
                    ("ordersaga chaos --seed 7 --only broker", "other faults, of one kind"),
                    ("ordersaga chaos --schedule", "only says what would go wrong, and when"),
                ],
            ),
            (
                "attack",
                &[
                    ("ordersaga attack", "every kind, then all at once"),
                    ("ordersaga attack --list", "which there are"),
                    ("ordersaga attack --only all --seconds 30", "all at once, longer"),
                ],
            ),
            (
                "fuzz",
                &[
                    ("ordersaga fuzz", "on a stack of its own"),
                    ("ordersaga fuzz --seed 7 --examples 500", "others, and more of them"),
                ],
            ),
            ("deny", &[("ordersaga deny", "licences, sources, bans, advisories")]),
        ],
    },
    Group {
        heading: "Plan",
        commands: &[
            (
                "load",
                &[
                    ("ordersaga load", "as fast as 64 clients can"),
                    ("ordersaga load --wait --connections 256", "256 that wait for each order"),
                    ("ordersaga load --rate 100 --seconds 60", "100 a second for a minute"),
                    ("ordersaga load --hot 0.9 --cancel 0.3", "everybody wants the same"),
                ],
            ),
            (
                "bench",
                &[
                    ("ordersaga bench --quick", "each scenario once, under eight minutes"),
                    ("ordersaga bench --list", "which scenarios and limits there are"),
                    ("ordersaga bench --only saturation --runs 3", "some, three times"),
                ],
            ),
            (
                "capacity",
                &[
                    ("ordersaga capacity", "what today's load needs"),
                    ("ordersaga capacity --scenario sale --section limits", "what limits first"),
                    ("ordersaga capacity --orders-per-day 5000000 --format json", "another load"),
                    ("ordersaga capacity --constants", "every constant with where it is from"),
                ],
            ),
            (
                "simulate",
                &[
                    ("ordersaga simulate", "every scenario at 100,000 orders a second"),
                    ("ordersaga simulate --scenario lost-data-centre", "one of them"),
                    ("ordersaga simulate --scenario validation", "this machine beside its bench"),
                ],
            ),
        ],
    },
    Group {
        heading: "Repair",
        commands: &[
            (
                "dlq",
                &[
                    ("ordersaga dlq list", "letters that nobody has dealt with"),
                    ("ordersaga dlq show reset/8/12", "one, with its payload"),
                    ("ordersaga dlq replay --since 2h --dry-run", "what would be put back"),
                    ("ordersaga dlq discard reset/8/12 --yes", "nothing will be done about it"),
                ],
            ),
            (
                "retention",
                &[
                    ("ordersaga retention --dry-run", "what would go, and what stays and why"),
                    ("ordersaga retention --older-than 120d", "orders that ended before"),
                    ("ordersaga retention --dry-run --json", "for a script"),
                ],
            ),
        ],
    },
    Group {
        heading: "Build on it",
        commands: &[
            (
                "api-key",
                &[
                    ("ordersaga api-key new --name desk --scopes orders:read", "may look"),
                    (
                        "ordersaga api-key new --name shop --scopes orders:write --client-id 7",
                        "orders of one client",
                    ),
                ],
            ),
            (
                "sdk",
                &[
                    ("ordersaga sdk python --out ~/shop/client", "then do as its README.md says"),
                    ("ordersaga sdk openapi-generator-go --out /tmp/go", "by another generator"),
                ],
            ),
            (
                "openapi",
                &[
                    ("ordersaga openapi check", "whether the documents are what the code says"),
                    ("ordersaga openapi export", "writes them, and the collections"),
                ],
            ),
            (
                "help",
                &[
                    ("ordersaga help load", "the help of a command"),
                    ("ordersaga help exit-codes", "what the tool exits with"),
                ],
            ),
        ],
    },
];

/// The examples that begin with these words, which name a command: of one within another, those of
/// that other that call it.
pub(crate) fn examples(path: &[&str]) -> Vec<Example> {
    let all = GROUPS.iter().flat_map(|group| group.commands);
    let of_command = all.filter(|(name, _)| path.first() == Some(name));
    let lines = of_command.flat_map(|(_, examples)| *examples);
    let begins = |line: &str| {
        let mut words = line.split(' ').skip(1);
        path.iter().all(|name| words.next() == Some(name))
    };
    lines.copied().filter(|(line, _)| begins(line)).collect()
}

/// Examples as the help shows them.
pub(crate) fn section(examples: &[Example]) -> String {
    let width = examples.iter().map(|(line, _)| line.len()).max().unwrap_or_default();
    let lines = examples.iter().map(|(line, says)| format!("\n  {line:width$}  {says}"));
    format!("Examples:{}", lines.collect::<String>())
}
