"""The words that people use in names of tables, columns and kinds of events, and what they mean by them."""

from __future__ import annotations

import re

SUBJECT_WORDS: dict[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "user": """user users customer customers client clients member household visitor account reader person uid buyer
            reviewer viewer listener shopper subscriber patient student player consumer usr cust demographics profiles
            kunde kunden benutzer utilisateur cliente usuario utente klant пользователь клиент 用户 会员 顾客 客户 买家
            ユーザー 顧客""",
        "item": """item items product products movie movies film book books article articles sku asin isbn track song
            doc document corpus passage news recipe content listing iid pid good goods offer post video game restaurant
            business hotel answer material course joke podcast paper artist album artikel produkt produkte produit
            producto articulo prodotto ad ads advert creative campaign campaigns banner товар объявление 商品 物品 产品
            宝贝 视频 文章 电影 歌曲 广告 作品 製品 動画""",
        "query": "query queries question questions topic qid search inquiry",
        "time": """time timestamp date datetime ts at when moment day created added happened bought viewed occurred
            datum zeit zeitpunkt fecha heure ora tijd время дата 时间 日期 时间戳 時間 日時""",
        "event": """event events interaction interactions inter rating ratings transaction transactions order orders
            log logs click clicks view views purchase purchases qrels judgments impressions history behaviors
            behaviours sessions plays feedback activity reviews actions sales likes 行为 日志 记录 点击 曝光 订单 交易
            行動 履歴""",
    }.items()
}
SETTING_NAMES: dict[str, str] = {  # setting -> whole names that stand for it
    "query_text": "query question search searched text keywords search_term search_terms term phrase q query_text "
    "utterance sentence review content",
    "title": "title name headline titel nombre nom product_name movie_title item_name subject label libelle "
    "product_type product caption book_title song_name headline 标题 名称 商品名称 商品名 品名 タイトル",
    "text": "description text body beschreibung descripcion content abstract summary overview plot "
    "details about answer short_description long_description notes story 描述 详情 简介 説明",
    "category": "category categories genre kategorie categoria genres class department tags shelf topic section "
    "product_category item_category cat type kind 类目 类别 分类 品类 カテゴリ",
    "price": "price cost preis prix precio unit_price list_price amount preço prezzo prijs pris cena hinta "
    "fiyat цена 价格 価格",
    "available": "available verfügbar in_stock instock active is_active is_available enabled availability",
    "language": "language lang locale language_code",
    "created_year": "year release_year publication_year",
    "created_at": "release_date published published_at publish_date created created_at added date pubdate",
    "valid_from": "valid_from effective_from effective_date valid_since from_date date_from starts_at start_date "
    "price_date changed_at updated_at modified_at last_updated last_modified snapshot_date as_of version gültig_ab "
    "valable_du vigente_desde valido_dal geldig_vanaf",
    "split": "split fold subset partition set",
    "event_type": "event event_type type action event_name interaction_type behavior activity verb behavior_type "
    "behaviour behaviour_type action_type kind aktion ereignis évènement événement evento acción azione действие "
    "событие 行为 行为类型 事件 事件类型 动作 操作 行動 イベント",
    "request_id": "request_id requestid req_id request impression_id slate_id list_id display_id serve_id "
    "recommendation_id rec_id reco_id auction_id page_view_id pageview_id result_page_id trace_id anfrage_id "
    "requête_id solicitud_id richiesta_id запрос_id 请求id 请求 曝光id リクエストid",
    "position": "position pos rank slot list_position item_position display_position result_position ad_position rang "
    "platz posición posizione posição positie позиция 位置 排名 坑位 順位 表示位置",
    "turns": "turns conversation messages dialog dialogue history",
    "known_at": "known_at received_at ingested_at arrived_at logged_at",
    "label": "label sentiment class category target topic intent tag y polarity",
}
# label of a scale or an amount -> whole names of its column; those of what happened or not are in event_words
LABEL_NAMES: dict[str, str] = {
    "rating": "rating ratings stars star score overall rate bewertung sterne note calificación puntuación voto "
    "avaliação оценка рейтинг 评分 打分 星级 評価",
    "relevance": "relevance grade rel relevancy judgment judgement score",
    "dwell": "dwell dwell_time dwelltime watch_time watchtime play_time playtime play_duration watch_duration "
    "listen_time listening_time read_time reading_time view_time time_spent duration duration_watched ms_played "
    "seconds_played seconds_watched watch_seconds watch_ratio watched_ratio percent_watched completion "
    "completion_rate verweildauer spieldauer durée duración durata duração время_просмотра 停留时长 观看时长 播放时长 "
    "阅读时长 时长 滞在時間 視聴時間",
    "quantity": "quantity qty units menge anzahl quantité cantidad quantità quantidade количество 数量 件数 購入数",
}
ID_WORDS = ("id", "key", "code", "no", "nr", "number", "sku", "isbn", "asin")


def name_tokens(name: str) -> list[str]:
    """The words of a name in lower case, the same for userID, user_id and user.id."""
    spaced = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])", r"\1\3 \2\4", name)
    return [word for word in re.split(r"[\W_]+", spaced.lower()) if word]


def name_words(name: str) -> set[str]:
    """The words of a name; a word like "userid" counts as "user" too."""
    tokens = set(name_tokens(name))
    return tokens | {word[:-2] for word in tokens if word.endswith("id") and len(word) > 3}


def is_id(name: str) -> bool:
    """Whether a name says that the values are ids."""
    tokens = name_tokens(name)
    if not tokens:
        return False
    last = tokens[-1]
    subjects = ("user", "item", "query")
    return last in ID_WORDS or (last.endswith("id") and any(last[:-2] in SUBJECT_WORDS[each] for each in subjects))


def name_score(name: str, setting: str) -> float:
    """How well a name fits a setting: near 1 for a whole name, less if only a word of it fits, 0 if none does."""
    names = SETTING_NAMES.get(setting, LABEL_NAMES.get(setting, "")).split()
    tokens = name_tokens(name)
    if (joined := "_".join(tokens)) in names:
        return 1.0 - 0.01 * names.index(joined)
    return 0.6 if tokens and tokens[-1] in names else 0.45 if set(tokens) & set(names) else 0.0
