"""Complete Journey: purchases and coupons of the households of a grocery chain, as the tables of a recipe.

Its coupons of campaigns of types B and C went to a household all together, so that every one of them is an exposure;
of type A each household got a choice that the data does not have. Promotions are left out.
"""

from __future__ import annotations

from pathlib import Path

from rankline.io.sql import literal, memory_database

MEMORY_MB = 1024
RAW = {
    "campaign_descriptions.parquet": "50850beea46c52b7c71ed57e2f7027b0737fdef3b3c95bb628465425e8621216",
    "campaigns.parquet": "5038e291ea3188f0bd3a0e429412ff29111c4f743b5a364c4cb6d86b7f4b24a4",
    "coupon_redemptions.parquet": "4197ed2c17ce66b614d2acc3ee9768a42a6aaa3be5ed62ecf35cef17da2299f8",
    "coupons.parquet": "2c4b102aa2245f5ac229e263f90f0b54263c4a83d352df14f7fa3f49f25fc05e",
    "demographics.parquet": "84b97b9726bb7d9bddd7275cec65da8d0a820625e19fda1cfc379b7fb0ebfaed",
    "products.parquet": "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
    "transactions.parquet": "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925",
}
OFFERED = """
    SELECT household_id, campaign_id, coupon_upc, start_date, end_date
    FROM campaigns JOIN campaign_descriptions USING (campaign_id)
    JOIN (SELECT DISTINCT campaign_id, coupon_upc FROM coupons) USING (campaign_id)
    WHERE campaign_type IN ('Type B', 'Type C')
"""
# what a coupon is for: the products, and the words of their types, the most frequent first
COVERED = """
    SELECT DISTINCT coupon_upc, product_id FROM coupons
    JOIN (SELECT DISTINCT campaign_id FROM offered) USING (campaign_id)
"""
# the products of one type that the same coupons are for, bought at one time, are one event
GROUPS = """
    SELECT product_id, coalesce(product_type, product_category, department) AS type,
        list_sort(coalesce(tags, [])) AS tags,
        type || coalesce(' #' || left(md5(list_sort(tags)::VARCHAR), 6), '') AS item
    FROM products
    LEFT JOIN (SELECT product_id, list('c' || coupon_upc) AS tags FROM covered GROUP BY product_id) USING (product_id)
"""
PURCHASES = """
    SELECT household_id::VARCHAR AS household, item, any_value(transaction_timestamp) AS happened_at,
        any_value(transaction_timestamp) AS known_at, basket_id::VARCHAR AS request,
        'purchase' AS kind
    FROM transactions JOIN groups USING (product_id)
    WHERE household_id IN (SELECT household_id FROM offered) AND quantity > 0
    GROUP BY household_id, basket_id, item
"""
# whether a coupon is redeemed is known when its campaign ends
EXPOSURES = """
    SELECT household_id::VARCHAR AS household, 'c' || coupon_upc AS item, start_date AS happened_at,
        end_date + INTERVAL 1 DAY AS known_at, campaign_id || '-' || household_id AS request,
        CASE WHEN redeemed IS NULL THEN 'shown' ELSE 'redeemed' END AS kind
    FROM offered LEFT JOIN (
        SELECT DISTINCT household_id, campaign_id, coupon_upc, true AS redeemed FROM coupon_redemptions
    ) USING (household_id, campaign_id, coupon_upc)
"""
ITEMS = """
    WITH words AS (
        SELECT coupon_upc, type, count(*) AS products FROM covered JOIN groups USING (product_id) GROUP BY ALL)
    SELECT 'c' || coupon_upc AS item, 'coupon' AS item_kind, ['c' || coupon_upc] AS tags,
        'coupon: ' || string_agg(type, ', ' ORDER BY products DESC, type) AS name
    FROM words GROUP BY coupon_upc
    UNION ALL
    SELECT item, 'products', any_value(tags), any_value(type) FROM groups
    WHERE item IN (SELECT item FROM events) GROUP BY item
    ORDER BY item
"""
HOUSEHOLDS = """
    SELECT household_id::VARCHAR AS household, age, income, household_size, kids_count
    FROM (SELECT DISTINCT household_id FROM offered) LEFT JOIN demographics USING (household_id) ORDER BY household
"""


def write_tables(folder: Path) -> None:
    """Turn the package's files in ``folder`` into events.parquet, items.parquet and households.parquet.

    The households are those that got a coupon. An item is a coupon, or the products of one type that the same coupons
    are for; both have these coupons as their categories, so that a household's share of purchases in a coupon's
    category says how often it bought what the coupon is for.
    """
    with memory_database(memory_mb=MEMORY_MB) as db:
        for name in RAW:
            db.execute(f"CREATE VIEW {name.partition('.')[0]} AS SELECT * FROM {literal(str(folder / name))}")
        for name, query in (("offered", OFFERED), ("covered", COVERED), ("groups", GROUPS)):
            db.execute(f"CREATE TABLE {name} AS {query}")
        db.execute(f"CREATE TABLE events AS {PURCHASES} UNION ALL {EXPOSURES}")
        for name, query in (
            ("events", "SELECT * FROM events ORDER BY happened_at, request, item"),
            ("items", ITEMS),
            ("households", HOUSEHOLDS),
        ):
            db.execute(f"COPY ({query}) TO {literal(str(folder / name) + '.parquet')} (FORMAT parquet)")
    for name in RAW:
        (folder / name).unlink()
