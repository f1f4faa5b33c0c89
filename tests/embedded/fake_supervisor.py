"""The real supervisor, with a migration and children that only say that they were there.

The variables of the plan steer it: ``CRASHING`` and ``STUBBORN`` name a child that ends at once
and one that ignores SIGTERM, ``BAD_MIGRATION`` makes the migration fail. A child ends as one that
was asked to leave once there is a file ``drain-<name>`` in the home.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import psycopg

from ddit_batch.embedded.home import Home
from ddit_batch.embedded.plan import Addresses, ClusterPlan, planned_services
from ddit_batch.embedded.process import Service
from ddit_batch.embedded.supervisor import main
from ddit_batch.errors import ServiceError

CHILD = """
echo "$0 started"
[ "$CRASHING" = "$0" ] && exit 7
if [ "$STUBBORN" = "$0" ]; then trap '' TERM; else trap 'echo $0 >> "$1/stopped"; exit' TERM; fi
while :; do
    [ -e "$1/drain-$0" ] && exit 20
    sleep 0.05
done
"""


def migrate(database_url: str) -> None:
    if "BAD_MIGRATION" in sys.argv[-1]:
        raise ServiceError("the migration is bad")
    url = database_url.replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (word text)")


def services_of(home: Home, plan: ClusterPlan, at: Addresses) -> tuple[Service, ...]:
    return tuple(
        replace(service, argv=("/bin/sh", "-c", CHILD, service.name, str(home.path)))
        for service in planned_services(home, plan, at)
    )


if __name__ == "__main__":
    sys.exit(main(migrate=migrate, services_of=services_of))
