"""The words by which logs name what happened to an item, and the label that each stands for."""

from __future__ import annotations

import functools

from onboarding.inference.vocabulary import name_tokens
from rankline.labels import IMPRESSION

# label -> its weight in learning: above 0 the event is a positive, below 0 a negative. Of two labels whose words are in
# one name, the first is meant: a "purchase refunded" is a return, a "search result click" a click.
LABEL_WEIGHTS: dict[str, float] = {
    "return": -1, "remove": -1, "dislike": -1, "skip": -1, "like": 2, "share": 2, "cart": 3, "purchase": 5,
    "conversion": 5, "click": 1, "play": 1, "view": 0.2,
}  # fmt: skip
NEITHER = ""  # known, and it says nothing about an item
EVENT_WORDS: dict[str, str] = {
    "return": """return returned returns refund refunded chargeback cancel canceled cancelled cancellation
        order_cancelled storno storniert retoure rückgabe zurückgegeben remboursé remboursement retour annulé
        devolución devuelto devolucion reembolso cancelado reso rimborso devolvido reembolsado retournering возврат
        отмена 退货 退款 取消订单 返品 返金 キャンセル""",
    "remove": """remove removed delete deleted remove_from_cart removed_from_cart cart_remove removefromcart
        product_removed remove_from_wishlist entfernt entfernen gelöscht retiré retirer supprimé eliminado quitado
        rimosso removido verwijderd удалено удалить 移除 移出购物车 删除 カート削除""",
    "dislike": """dislike disliked thumbs_down thumbsdown thumb_down downvote downvoted unlike unliked hide hidden
        hides not_interested notinterested less_like_this report reported block blocked mute muted unfollow
        unfollowed unsubscribe unfavorite unfavourite unsave down gefällt_mir_nicht ausgeblendet je_n_aime_pas
        no_me_gusta non_mi_piace não_gostei дизлайк не_нравится 不喜欢 不感兴趣 点踩 踩 取消收藏 取消点赞 低評価
        興味なし""",
    "skip": """skip skipped skips next_track dismissed dismiss swipe_left swiped_left bounce bounced ignored
        übersprungen passé ignoré saltado omitido saltato pulado overgeslagen пропуск пропущено 跳过 划走 スキップ""",
    "like": """like liked likes favorite favorited favorites favourite favourited fav save saved bookmark bookmarked
        wishlist add_to_wishlist added_to_wishlist upvote upvoted thumbs_up thumbsup thumb_up swipe_right follow
        followed subscribe subscribed up heart merkliste gemerkt gefällt_mir favori aimé j_aime favoritos me_gusta
        guardado preferiti mi_piace curtir curtido gostei leuk избранное нравится лайк 收藏 点赞 喜欢 关注 加收藏
        いいね お気に入り""",
    "share": """share shared shares forward forwarded retweet repost reposted sent_to_friend geteilt teilen partagé
        partager compartido compartir condiviso compartilhado gedeeld поделиться репост 分享 转发 共有 シェア""",
    "cart": """cart carts addtocart add_to_cart added_to_cart add_cart basket add_to_basket add added atc
        begin_checkout checkout_started initiate_checkout warenkorb in_den_warenkorb panier ajout_panier carrito
        añadido carrello carrinho winkelwagen корзина в_корзину 加购 加购物车 加入购物车 カート カート追加""",
    "purchase": """purchase purchased purchases buy buys bought order ordered orders transaction transactions
        checkout payment paid pay sale sold booking booked rent rented reservation kauf gekauft bestellung bestellt
        buchung achat acheté commande commandé réservation compra comprado comprar pedido acquisto acquistato ordine
        koop gekocht bestelling покупка куплено заказ купить 购买 下单 支付 成交 付款 已购 購買 購入 注文""",
    "conversion": """conversion conversions convert converted converts conv install installed generate_lead lead
        apply applied application enquiry booking_request konversion konvertiert conversión convertido conversione
        конверсия 转化 安装 コンバージョン""",
    "click": """click clk clicked clicks clickout tap tapped open opened opens select selected select_item
        select_promotion visit visited ctr klick geklickt angeklickt clic cliqué clics cliccato clique clicado klik
        geklikt клик кликнул переход 点击 打开 クリック タップ""",
    "play": """play played plays listen listened stream streamed watch watched read reads download downloaded
        complete completed finished gehört gelesen gesehen écouté lu regardé escuchado leído visto ascoltato letto
        ouvido lido прослушано прочитано просмотрено 播放 收听 观看 阅读 下载 再生 視聴 閲読""",
    "view": """view viewed views view_item product_view product_viewed item_view view_content viewcontent detail
        detail_view pdp_view pv browse browsed look looked angesehen ansicht aufgerufen vu vue consulté vista
        visualizado visualizzato bekeken просмотр просмотрел 浏览 查看 閲覧""",
    IMPRESSION: """impression impressions imp imps impressed shown show shows display displayed exposure exposed
        expose served serve recommended recommendation rendered in_view viewable viewability view_item_list
        product_list_viewed item_list_view list_view view_search_results_list view_promotion promotion_viewed slate
        einblendung angezeigt gezeigt affichage affiché impresión mostrado impressione mostrato impressão exibido
        exibição weergave vertoond показ показан показано 曝光 展示 展现 推荐曝光 表示 インプレッション""",
    NEITHER: """page_view pageview page_viewed page_visit screen_view screenview session_start session_end
        first_visit first_open user_engagement scroll search searched searches products_searched view_search_results
        search_results query login logged_in log_in sign_in signin logout log_out sign_out sign_up signup register
        registered registration account_created home home_page homepage start end heartbeat ping error exception
        crash app_open app_update app_remove os_update notification_receive push_received view_cart cart_viewed
        checkout_step_viewed add_payment_info add_shipping_info filter filtered sort sorted sort_order hover
        mouse_move load loaded page_load other none startseite suche suchen anmeldung abmeldung recherche connexion
        déconnexion búsqueda inicio_sesión ricerca accesso busca pesquisa вход поиск выход 搜索 登录 登出 注册 首页
        検索 ログイン ログアウト""",
}  # fmt: skip


# words that turn what they are beside into what did not happen; a part of a known phrase (`not_interested`) does not
NEGATIONS = """
    not no non none never without didn didnt dont isn isnt wasn wasnt hasn hasnt fail failed fails failure
    unsuccessful error errors exception declined denied rejected aborted abort abandon abandoned abandonment incomplete
    undo undone undid revert reverted revoked nicht kein keine nie ohne fehlgeschlagen abgebrochen abgelehnt fehler pas
    sans jamais échoué échec erreur sin nunca fallido fallida fallo senza mai fallito não sem falhou falha niet geen
    zonder mislukt не нет без ошибка неудача отклонено
"""
NEGATIVE_PREFIXES = ("non", "not", "no", "un")  # nonclk, unclicked
NEGATIVE_MARKS = ("未", "不", "没", "非", "無", "无", "取消", "撤销", "失败", "失敗", "错误", "放弃", "なし", "ない")


@functools.cache
def _labels_of_words() -> dict[str, str]:
    ordered = [*LABEL_WEIGHTS, IMPRESSION, NEITHER]
    return {word: label for label in reversed(ordered) for word in EVENT_WORDS[label].split()}


def event_label(value: str) -> str | None:
    """The label of a kind of event, `impression`, "" for one that says nothing of an item, None for an unknown one.

    The longest words decide: `remove_from_cart` before `cart`, `Products Searched` as a whole before its parts. What
    did not happen (`not_clicked`, `payment_failed`) is unknown: it may be a negative, or no more than a fault.
    """
    label, is_negated = _meaning(value)
    return None if is_negated else label


def is_negated(value: str) -> bool:
    """Whether a name says that something did not happen, or failed."""
    return _meaning(value)[1]


def named_label(value: str) -> str | None:
    """The label of the words of a name, also where others deny it."""
    return _meaning(value)[0]


def _meaning(value: str) -> tuple[str | None, bool]:
    """The label of the words of a name, and whether the others deny it."""
    tokens = name_tokens(value)
    labels = _labels_of_words()
    order = {label: number for number, label in enumerate([*LABEL_WEIGHTS, IMPRESSION, NEITHER])}
    for size in range(len(tokens), 0, -1):
        starts = range(len(tokens) - size + 1)
        phrases = {start: "_".join(tokens[start : start + size]) for start in starts}
        if known := [start for start, phrase in phrases.items() if phrase in labels]:
            start = min(known, key=lambda each: order[labels[phrases[each]]])
            label, others = labels[phrases[start]], tokens[:start] + tokens[start + size :]
            return label, label != NEITHER and not set(NEGATIONS.split()).isdisjoint(others)
    for token, prefix in ((token, prefix) for token in tokens for prefix in NEGATIVE_PREFIXES):
        if token.startswith(prefix) and (label := labels.get(token.removeprefix(prefix), NEITHER)) != NEITHER:
            return label, True
    if value.isascii():
        return None, False
    # scripts without blanks between words
    text = "_".join(tokens)
    inside = [word for word in labels if not word.isascii() and len(word) > 1 and word in text]
    if not inside:
        return None, False
    longest = max(inside, key=len)
    label, rest = labels[longest], text.replace(longest, "", 1)
    return label, label != NEITHER and any(mark in rest for mark in NEGATIVE_MARKS)
