"""Requests, attempts and bodies in partitions of a day each (PostgreSQL), and the texts that can be searched for.

Nothing is copied: the tables as they were become the first partitions of the new ones. The indexes of PostgreSQL are
from here on fewer bytes than Django would make them, under the same names, so that it can still alter them.
"""

import django.db.models.deletion
from django.db import migrations, models

TABLES = {"history_requestrecord": "id", "history_requestattempt": "record_id", "history_requestpayload": "record_id"}
IDS_A_DAY = 10**10
BEFORE = "_before"
COLUMNS = ("model", "error_code", "error_message", "client_ip")

# Ascending, because then a page splits where it is full, not in the middle: half the size. Partial, where nearly
# every row has one and the same value. A hash of an id of 32 random characters, and one entry for all equal values.
INDEXES = {
    "history_requestrecord": {
        "history_req_started_bf59cc_idx": "(started_at, outcome)",
        "history_req_request_70e4ab_idx": "USING hash (request_id)",
        "history_req_model_a615ff_idx": "(model, id)",
        "history_req_node_id_4b91fd_idx": "(node_id, id)",
        "history_req_api_key_a3bed0_idx": "(api_key_id, id)",
        "history_req_outcome_89b39d_idx": "(outcome, id) WHERE outcome <> 'success'",
        "history_req_status_fe6956_idx": "(status, id) WHERE status <> 200",
        "history_req_kind_idx": "(kind)",
        "history_req_client_ip_idx": "(client_ip)",
        "history_req_error_message_idx": "(error_message) WHERE error_message <> ''",
        "history_req_error_code_idx": "(error_code) WHERE error_code <> ''",
    },
    "history_requestattempt": {"history_requestattempt_record_id_a7e5b587": "(record_id)"},
    "history_requestpayload": {},
}
PRIMARY_KEYS = {"history_requestrecord": "id", "history_requestpayload": "record_id"}


def partition(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    with schema_editor.connection.cursor() as cursor:
        # Rows whose constraints are still to be checked at the commit would forbid altering their tables.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in reversed(TABLES):
            _drop_foreign_keys(cursor, table)
        for table, column in TABLES.items():
            _partition(cursor, table, column)


def _drop_foreign_keys(cursor, table):
    cursor.execute("SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'f'", [table])
    for (name,) in cursor.fetchall():
        cursor.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')


def _partition(cursor, table, column):
    before = table + BEFORE
    _rename(cursor, table, before)
    cursor.execute(f"CREATE TABLE {table} (LIKE {before} INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE ({column})")
    if "id" in _columns(cursor, before):
        _move_counter(cursor, table, before)
    if key := PRIMARY_KEYS.get(table):
        cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_pkey PRIMARY KEY ({key})")
    for name, definition in INDEXES[table].items():
        cursor.execute(f"CREATE INDEX {name} ON {table} {definition}")
    cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {before} FOR VALUES FROM (MINVALUE) TO ({IDS_A_DAY})")
    cursor.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")


def _rename(cursor, table, before):
    """The table and its indexes but for the primary key lose their names; the indexes are made anew."""
    cursor.execute(f"ALTER TABLE {table} RENAME TO {before}")
    cursor.execute("SELECT indexrelid::regclass::text, indisprimary FROM pg_index WHERE indrelid = %s::regclass", [before])
    for name, is_primary in cursor.fetchall():
        if is_primary:
            cursor.execute(f"ALTER INDEX {name} RENAME TO {before}_pkey")
        else:
            cursor.execute(f"DROP INDEX {name}")


def _columns(cursor, table):
    cursor.execute("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0", [table])
    return [name for (name,) in cursor.fetchall()]


def _move_counter(cursor, table, before):
    """From the identity of the old table to a sequence of the new one: a table with an identity is no partition."""
    cursor.execute(f"SELECT last_value + is_called::int FROM {table}_id_seq")
    (following,) = cursor.fetchone()
    cursor.execute(f"ALTER TABLE {before} ALTER COLUMN id DROP IDENTITY")
    cursor.execute(f"CREATE SEQUENCE {table}_id_seq OWNED BY {table}.id START {following}")
    cursor.execute(f"ALTER TABLE {table} ALTER COLUMN id SET DEFAULT nextval('{table}_id_seq')")


FAILED = models.Index(fields=['outcome', '-id'], condition=~models.Q(outcome='success'), name='history_req_outcome_89b39d_idx')
NOT_200 = models.Index(fields=['status', '-id'], condition=~models.Q(status=200), name='history_req_status_fe6956_idx')


def index_failures(apps, schema_editor):
    """SQLite's turn: nearly every row succeeds, and costs two entries less."""
    if schema_editor.connection.vendor == "postgresql":
        return
    requests = apps.get_model("history", "RequestRecord")
    for index in (FAILED, NOT_200):
        schema_editor.remove_index(requests, models.Index(fields=index.fields, name=index.name))
        schema_editor.add_index(requests, index)


def collect_terms(apps, schema_editor):
    """The texts of the requests that are there already."""
    day = "(started_at AT TIME ZONE 'UTC')::date" if schema_editor.connection.vendor == "postgresql" else "date(started_at)"
    with schema_editor.connection.cursor() as cursor:
        for column in COLUMNS:
            cursor.execute(
                f'INSERT INTO history_searchterm (day, field, text) '
                f"SELECT DISTINCT {day}, '{column}', {column} FROM history_requestrecord WHERE {column} <> ''"
            )


class Migration(migrations.Migration):

    dependencies = [
        ('history', '0001_initial'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveIndex(model_name='requestrecord', name='history_req_outcome_89b39d_idx'),
                migrations.RemoveIndex(model_name='requestrecord', name='history_req_status_fe6956_idx'),
                migrations.AddIndex(model_name='requestrecord', index=FAILED),
                migrations.AddIndex(model_name='requestrecord', index=NOT_200),
                migrations.AlterField(
                    model_name='requestattempt',
                    name='record',
                    field=models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, related_name='attempts', to='history.requestrecord'),
                ),
                migrations.AlterField(
                    model_name='requestpayload',
                    name='record',
                    field=models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='payload', serialize=False, to='history.requestrecord'),
                ),
            ],
            database_operations=[
                migrations.RunPython(partition, elidable=False),
                migrations.RunPython(index_failures, elidable=False),
            ],
        ),
        migrations.CreateModel(
            name='SearchTerm',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateField()),
                ('field', models.CharField(max_length=20)),
                ('text', models.CharField(max_length=300)),
            ],
        ),
        migrations.AddConstraint(
            model_name='searchterm',
            constraint=models.UniqueConstraint(fields=('day', 'field', 'text'), name='search_term_once'),
        ),
        migrations.RunPython(collect_terms, elidable=False),
    ]
