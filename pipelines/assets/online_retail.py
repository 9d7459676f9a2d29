"""Online Retail: a year of invoices of a British gift shop, as the log, the catalogue and the customers of a recipe.

Chen, Sain, Guo (2012), Journal of Database Marketing and Customer Strategy Management 19(3), 197-208.
"""

from __future__ import annotations

from pathlib import Path

from rankline.io.sql import literal, memory_database

RAW = "online_retail.parquet"
MEMORY_MB = 1024
# five digits and perhaps a letter is a product; POST, DOT, M, C2, D, S… are fees and corrections
PRODUCT = r"^\d{5}"
LINES = f"""
    SELECT InvoiceNo AS invoice, StockCode AS sku, InvoiceDate::TIMESTAMP AS bought_at,
        CustomerID::INTEGER::VARCHAR AS customer,
        trim(Description) AS description, Quantity::INTEGER AS quantity, UnitPrice AS unit_price, Country AS country
    FROM raw WHERE regexp_matches(StockCode, '{PRODUCT}')
"""
# a line that is entered twice is one purchase of both quantities
SOLD = """
    SELECT customer, sku, min(bought_at) AS bought_at, invoice, sum(quantity)::INTEGER AS quantity, 'purchase' AS kind,
        avg(unit_price) AS unit_price
    FROM sold WHERE customer IS NOT NULL GROUP BY customer, sku, invoice
"""
# a credit note says what came back, not which invoice it was on
RETURNED = """
    SELECT customer, sku, min(bought_at) AS bought_at, invoice, sum(quantity)::INTEGER AS quantity, 'return' AS kind,
        avg(unit_price) AS unit_price
    FROM lines WHERE customer IS NOT NULL AND invoice LIKE 'C%' AND quantity < 0 GROUP BY customer, sku, invoice
"""
# names are in capitals; "damages", "?" and "wrongly coded" are notes of the warehouse
ITEMS = """
    WITH named AS (
        SELECT sku, description, description = upper(description) AS is_name, count(*) AS times FROM sold
        WHERE length(description) > 3 GROUP BY sku, description),
    priced AS (SELECT sku, arg_max(unit_price, bought_at) AS price FROM sold GROUP BY sku)
    SELECT sku, coalesce(arg_max(description, (is_name, times, description)), '') AS name, any_value(price) AS price
    FROM priced LEFT JOIN named USING (sku)
    WHERE sku IN (SELECT sku FROM events) GROUP BY sku ORDER BY sku
"""
CUSTOMERS = """
    SELECT customer, mode(country ORDER BY country) AS country FROM lines
    WHERE customer IN (SELECT customer FROM events) GROUP BY customer ORDER BY customer
"""


def write_tables(source: Path, folder: Path) -> None:
    """Write events.parquet, items.parquet and customers.parquet from the invoices in the folder ``source``.

    An event is a product on an invoice or on a credit note (`kind`). Lines without a customer have nobody who could
    be asked about, and are left out. The price of an item is the last one it was sold at.
    """
    with memory_database(memory_mb=MEMORY_MB) as db:
        db.execute(f"CREATE VIEW raw AS SELECT * FROM {literal(str(source / RAW))}")
        db.execute(f"CREATE TABLE lines AS {LINES}")
        db.execute(
            "CREATE TABLE sold AS SELECT * FROM lines WHERE quantity > 0 AND unit_price > 0 AND invoice NOT LIKE 'C%'"
        )
        db.execute(f"CREATE TABLE events AS {SOLD} UNION ALL {RETURNED}")
        for name, query in (
            ("events", "SELECT * FROM events ORDER BY bought_at, invoice, sku"),
            ("items", ITEMS),
            ("customers", CUSTOMERS),
        ):
            db.execute(f"COPY ({query}) TO {literal(str(folder / f'{name}.parquet'))} (FORMAT parquet)")
