"""One-shot set-up: the databases and buckets that the services want. What exists stays as it is.

Connects by the environment: PGHOST, PGUSER, PGPASSWORD; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL_S3.
"""

from __future__ import annotations

import argparse

import boto3
import psycopg2
from psycopg2 import sql


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", action="append", default=[], help="to create if absent")
    parser.add_argument("--bucket", action="append", default=[], help="to create if absent")
    options = parser.parse_args()
    make_databases(options.database)
    make_buckets(options.bucket)


def make_databases(names: list[str]) -> None:
    connection = psycopg2.connect(dbname="postgres")
    connection.autocommit = True  # CREATE DATABASE runs in no transaction
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
                print(f"database {name} created")
    connection.close()


def make_buckets(names: list[str]) -> None:
    store = boto3.client("s3")
    there = {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}
    for name in names:
        if name not in there:
            store.create_bucket(Bucket=name)
            print(f"bucket {name} created")


if __name__ == "__main__":
    main()
