"""Random faults under load, and the table of what they did: `make chaos`.

    python -m tests.chaos --faults 1000 --streams 16 --seed 1
    python -m tests.chaos --only "kill -9 of a session" --faults 20
    python -m tests.chaos --loopback       # no namespaces: fewer kinds of faults

The same seed gives the same faults in the same order. The code is 0 where no stream was lost, no
answer changed and nothing was left behind.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from pathlib import Path

from tests.chaos import records
from tests.chaos.cluster import Cluster, ClusterSettings
from tests.chaos.faults import FAULTS, possible_faults, schedule
from tests.chaos.load import Load, undisturbed
from tests.chaos.namespaces import why_no_machines
from tests.chaos.report import table
from tests.chaos.trial import Outcome, Trial, Watch

ROOT_ARGS = ("-c", "256", "--context-shift")
SHOWN = 3  # findings of one fault that are told in full
NEW_ENGINE = next(row for row in FAULTS if row.name == "kill -9 of the engine")
"""A fault that also makes the cluster forget how often each node was lost."""


def _parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--faults", type=int, default=100, metavar="N")
    parser.add_argument("--streams", type=int, default=16, metavar="N")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="default: any")
    only = "only faults with this in their name; may be given several times"
    parser.add_argument("--only", action="append", metavar="TEXT", help=only)
    parser.add_argument("--loopback", action="store_true", help="no namespaces")
    root = "a flag of dllama-root, as in --root=--sync-type=f32; may be given several times"
    parser.add_argument("--root", action="append", default=[], metavar="FLAG", help=root)
    parser.add_argument("--table", type=Path, metavar="FILE", help="where the table is written")
    parts = "outcomes are added to it, and the table is that of all in it: a run in parts"
    parser.add_argument("--records", type=Path, metavar="FILE", help=parts)
    parser.add_argument("--logs", type=Path, metavar="FILE", help="where the programs' logs go")
    return parser.parse_args(args)


def _show(done: int, n: int, outcome: Outcome, began_s: float) -> None:
    """A bar where a person looks on, else a line for each fault."""
    felt = "" if outcome.serve_s is None else f" {outcome.serve_s:.1f} s"
    if sys.stderr.isatty():
        full = 30 * done // n
        bar = "#" * full + "." * (30 - full)
        left_s = (time.monotonic() - began_s) / done * (n - done)
        line = f"\r{bar} {done}/{n}, {left_s / 60:.0f} min left: {outcome.fault.name}{felt}"
        print(f"{line:<110.110}", end="\n" if done == n else "", file=sys.stderr, flush=True)
    else:
        noticed = "" if outcome.notice_s is None else f" noticed {outcome.notice_s:.2f} s,"
        print(f"{done}/{n} {outcome.fault.name} (seed {outcome.seed}):{noticed}{felt} "
              f"of {outcome.lasted_s:.1f} s", file=sys.stderr, flush=True)  # fmt: skip
    for finding in outcome.findings[:SHOWN]:
        kind = "lost" if finding.is_lost else "changed"
        print(f"\n  {kind}: {finding.case}: {finding.detail}", file=sys.stderr, flush=True)
    if len(outcome.findings) > SHOWN:
        print(f"  and {len(outcome.findings) - SHOWN} more", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # tidies up
    seed = random.randrange(1 << 30) if args.seed is None else args.seed
    why_not = "as asked for" if args.loopback else why_no_machines()
    if why_not is not None:
        print(f"no machines of namespaces: {why_not}; everything is on loopback", file=sys.stderr)
    rows = possible_faults(has_machines=why_not is None)
    if args.only:
        rows = tuple(row for row in rows if any(text in row.name for text in args.only))
    if not rows:
        print("no fault has such a name", file=sys.stderr)
        return 2
    print(f"seed {seed}: {args.faults} faults under {args.streams} streams", file=sys.stderr)
    settings = ClusterSettings(args.workers, why_not is None, root_args=(*ROOT_ARGS, *args.root))
    with Cluster(settings) as cluster:
        expected = undisturbed(cluster.socket)
    if cluster.leftovers:
        print(f"left behind without any fault: {cluster.leftovers}", file=sys.stderr)
        return 1
    outcomes: list[Outcome] = []
    began_s = time.monotonic()
    cluster = Cluster(settings)
    with cluster:
        try:
            with Load(cluster.socket, args.streams, expected) as load, Watch(cluster) as watch:
                trial = Trial(cluster, load, watch)
                for fault, fault_seed in schedule(rows, args.faults, seed):
                    if cluster.root.has_ended():
                        break
                    if not trial.is_worth_hurting(fault_seed):
                        fault = NEW_ENGINE
                    outcomes.append(trial.suffer(fault, fault_seed))
                    _show(len(outcomes), args.faults, outcomes[-1], began_s)
                    if args.records:
                        records.append(args.records, outcomes[-1])
                trial.await_whole()
        finally:
            if args.logs:
                args.logs.write_text(cluster.all_words())
    n_bad = len(load.findings)
    text = table(records.read([args.records]) if args.records else outcomes)
    took_s, left = time.monotonic() - began_s, "; ".join(cluster.leftovers) or "nothing"
    n_answers = sum(load.n_answers.values())
    text += f"\n{n_answers} answers in {took_s:.0f} s, seed {seed}; left behind: {left}\n"
    print(text)
    if args.table:
        args.table.write_text(text)
    for finding in load.findings:
        if all(finding not in outcome.findings for outcome in outcomes):
            print(f"after a fault: {finding.case}: {finding.detail[:1500]}", file=sys.stderr)
    return 1 if n_bad or cluster.leftovers else 0


if __name__ == "__main__":
    sys.exit(main())
