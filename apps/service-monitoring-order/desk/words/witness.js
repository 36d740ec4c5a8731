// The texts of the five accounts of an order.

export const WITNESS_WORDS = {
  witnesses: ['What each service knows', 'Что знает каждый сервис'],
  witnesses_what: ['Asks each service for its own account of this order, and compares them.', 'Спрашивает каждый сервис, что он сам знает об этом заказе, и сравнивает ответы.'],
  witnesses_ask: ['Ask all', 'Спросить всех'],
  witnesses_again: ['Ask again', 'Спросить ещё раз'],
  learnt: ['Newest fact', 'Последнее событие'],
  asked: ['Asked', 'Спрошено'],
  versions: ['Version in the cache: {cache}; in the database: {database}', 'Версия в кеше: {cache}, в базе: {database}'],

  name_create: ['create-order', 'create-order'],
  name_store: ['store', 'склад'],
  name_monitoring: ['monitoring', 'мониторинг'],
  name_cache: ['cache', 'кеш'],
  name_topics: ['topics', 'топики'],

  says_nothing: ['Not asked, or no answer', 'Не спрошен или не ответил'],
  says_unknown: ['not known', 'не известен'],
  says_recorded: ['all facts', 'все события'],
  says_part_recorded: ['some facts', 'часть событий'],
  says_without: ['no reservation', 'нет резерва'],

  witness_agree: ['All agree.', 'Все согласны.'],
  witness_partial: ['Those that answered agree.', 'Ответившие согласны.'],
  witness_delay: ['Something is on its way; nothing contradicts.', 'Не все ещё знают последнее; противоречий нет.'],
  witness_contradiction: ['Contradiction', 'Противоречие'],

  found_exclusive: ['{fact} and {other} exclude each other. {fact}: {first}. {other}: {second}.', '{fact} и {other} исключают друг друга. {fact}: {first}. {other}: {second}.'],
  found_released_open: ['{first} has {fact}, which follows a cancellation only, and create-order has not cancelled the order.', '{fact} есть ({first}), но это бывает только после отмены, а в create-order заказ не отменён.'],
  found_tombstone_open: ['The store passed the order over as cancelled, and create-order has not cancelled it.', 'Склад пропустил заказ как отменённый, а в create-order он не отменён.'],
  found_differs: ['{field} differs: {each}.', '{field} различается: {each}.'],
  found_sourceless: ['{fact} is known to {first}, and unknown to {second}, which decides it.', '{fact} есть ({first}), а там, где это решают ({second}), такого нет.'],
  found_cache_ahead: ['The cache has version {cached} of the item, the database only {stored}.', 'В кеше версия товара {cached}, а в базе только {stored}.'],
  found_cache_misses: ['Monitoring knows {fact}, and the cache still has the item without it. The cache is to be told first.', 'Мониторинг знает {fact}, а в кеше товар ещё без этого. Кеш должен узнавать первым.'],
  found_not_heard: ['{fact} was decided {age} ago by {first}; {who} has not read it yet.', '{fact}: решено {age} назад ({first}), {who} ещё не прочёл.'],
  found_cache_behind: ['The item changed {age} ago; the cache has not been told yet.', 'Товар изменился {age} назад, кеш об этом ещё не знает.'],
  found_not_released: ['create-order cancelled the order {age} ago; the store has not given the stock back yet.', 'create-order отменил заказ {age} назад, склад ещё не вернул товар.'],
  found_not_decided: ['create-order stored the order {age} ago; the store has not decided yet.', 'create-order сохранил заказ {age} назад, склад ещё не решил.'],
  found_unsent: ['The event may still wait to be published.', 'Возможно, событие ещё не отправлено.'],
};
