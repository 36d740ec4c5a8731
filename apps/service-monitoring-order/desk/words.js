// The page's texts, in English and Russian. Names of the API (steps, facts) are the same in both.

const LANGUAGES = ['en', 'ru'];

export const WORDS = {
  desk: ['Order desk', 'Заказы'],
  skip: ['Skip to content', 'К содержанию'],
  now: ['Now', 'Сейчас'],
  find: ['Find', 'Найти'],
  stuck: ['Stuck', 'Застряли'],
  items: ['Items', 'Товары'],
  language: ['RU', 'EN'],
  language_name: ['По-русски', 'In English'],
  no_such_view: ['No such view', 'Такого раздела нет'],
  reading: ['Loading …', 'Загрузка …'],
  none: ['None found.', 'Ничего не найдено.'],
  refresh: ['Refresh', 'Обновить'],
  first_page: ['First page', 'К началу'],
  next_page: ['Next page', 'Дальше'],
  problems: ['Error reference', 'Справочник ошибок'],
  received: ['Traffic of this page: {frames} answers/s, {bytes} kB/s', 'Трафик страницы: ответов/с {frames}, кБ/с {bytes}'],

  sign_in: ['A service asks who you are. Key or token:', 'Сервис спрашивает, кто вы. Ключ или токен:'],
  send: ['Send', 'Отправить'],

  live: ['Live', 'Онлайн'],
  polling: ['Every 5 s', 'Раз в 5 с'],
  starting: ['Connecting', 'Подключение'],
  away: ['No answer, retrying in {gap}', 'Нет ответа, повтор через {gap}'],
  paused: ['Paused', 'Пауза'],
  pause: ['Pause', 'Пауза'],
  resume: ['Resume', 'Продолжить'],
  as_of: ['As of {time}, {gap} ago', 'Данные на {time}, {gap} назад'],
  as_of_unknown: ['As of: not known', 'Время данных неизвестно'],

  keys: ['Keyboard shortcuts', 'Горячие клавиши'],
  keys_on: ['Shortcuts on', 'Горячие клавиши включены'],
  key_find: ['Find an order', 'Найти заказ'],
  key_move: ['Next or previous row', 'Следующая или предыдущая строка'],
  key_open: ['Open the row', 'Открыть строку'],
  key_pause: ['Pause or resume', 'Пауза или продолжить'],
  key_help: ['This list', 'Этот список'],
  close: ['Close', 'Закрыть'],

  problem_unreachable: ['{base} does not answer', '{base} не отвечает'],
  problem_why: ['It is down, refuses this page, or is elsewhere (DOCS_URLS). It is safe to try again.', 'Он не работает, отказывает этой странице или находится в другом месте (DOCS_URLS). Повторить безопасно.'],
  problem_kind: ['What this means', 'Что это значит'],
  problem_request: ['Request {id}', 'Запрос {id}'],
  try_again: ['Try again', 'Повторить'],
  try_again_in: ['Try again in {gap}', 'Повторить через {gap}'],
  missing_shards: ['Orders on {shards} are missing: it does not answer.', 'Без заказов с {shards}: нет ответа.'],

  order: ['Order', 'Заказ'],
  client: ['Client', 'Клиент'],
  item: ['Item', 'Товар'],
  seller: ['Seller', 'Продавец'],
  quantity: ['Quantity', 'Количество'],
  step: ['Step', 'Шаг'],
  age: ['Age', 'Возраст'],
  shard: ['Shard', 'Шард'],
  partition: ['Partition', 'Партиция'],
  placed: ['Placed', 'Размещён'],
  state: ['State', 'Состояние'],
  since: ['Since', 'С'],

  place: ['Place order', 'Заказать'],
  place_item: ['Item (id or name)', 'Товар (номер или название)'],
  place_facts: ['{name}, price {price} (minor units), {free} free', '{name}, цена {price} коп., свободно {free}'],
  place_no_item: ['No such item: the store will refuse the order.', 'Такого товара нет: склад откажет.'],
  placed_said: ['Order {id} is placed.', 'Заказ {id} размещён.'],
  placed_before: ['An earlier try placed it.', 'Создан предыдущей попыткой.'],
  placed_wait: ['The store has not answered yet.', 'Склад ещё не ответил.'],
  placed_heard: ['{step} after {gap}.', '{step} через {gap}.'],

  newest: ['Newest orders', 'Новые заказы'],
  newest_held: ['The list waits while you use it; {n} newer', 'Список не обновляется, пока вы на нём; новее: {n}'],
  newest_show: ['Show', 'Показать'],
  no_orders: ['No orders yet. Place one, or run', 'Заказов ещё нет. Разместите заказ или запустите'],
  hour: ['Last hour', 'Последний час'],
  last_minute: ['in the minute before: {n}', 'за прошлую минуту: {n}'],
  rate: ['{rate} orders/s in the minute before.', 'За прошлую минуту заказов/с: {rate}.'],
  answers: ['The store answered the newest {n} in {median} (median), {slowest} at most.', 'На последние {n} склад ответил за {median} (медиана), не дольше {slowest}.'],
  counts_records: ['Records are counted, so duplicates count twice.', 'Считаются записи, повторы тоже.'],
  chart_title: ['{fact} by minute', '{fact} по минутам'],
  chart_text: ['{sum} in the last hour, at most {most} a minute.', 'За час {sum}, в минуту не больше {most}.'],
  minute: ['Minute', 'Минута'],
  by_client: ['by client', 'клиентом'],
  by_store: ['by store', 'складом'],
  by_deadline: ['by deadline', 'по сроку'],

  find_order: ['Order id', 'Номер заказа'],
  find_digits: ['A whole number', 'Целое число'],
  find_any: ['any', 'любой'],
  from: ['Placed from', 'Размещён с'],
  to: ['Placed before', 'Размещён до'],
  apply: ['Apply', 'Применить'],
  clear: ['Clear', 'Сбросить'],
  found: ['Found', 'Найдено'],
  scanned: ['Showing {n}; looked at {scanned} orders.', 'Показано {n}, просмотрено заказов: {scanned}.'],
  scanned_all: ['No older ones.', 'Более старых нет.'],
  scanned_some: ['Older ones may follow.', 'Могут быть и более старые.'],

  facts: ['History', 'История'],
  fact_PLACED: ['The order is stored.', 'Заказ создан.'],
  fact_RESERVED: ['Stock is held for it.', 'Товар зарезервирован.'],
  fact_RELEASED: ['The stock is given back.', 'Товар возвращён.'],
  fact_CANCELLED: ['The order is over.', 'Заказ завершён.'],
  reason_OUT_OF_STOCK: ['Too few units are free.', 'Свободного товара не хватает.'],
  reason_ITEM_NOT_FOUND: ['There is no such item.', 'Такого товара нет.'],
  reason_SELLER_MISMATCH: ['The item has another seller.', 'У товара другой продавец.'],
  reason_CANCELLED_BY_CLIENT: ['The client cancelled it.', 'Отменил клиент.'],
  reason_DEADLINE_EXCEEDED: ['The store did not answer in time.', 'Склад не ответил в срок.'],
  said_by: ['Reported by {who}.', 'Сообщил {who}.'],
  who_create: ['create-order', 'create-order'],
  who_store: ['the store', 'склад'],
  who_client: ['create-order, for the client', 'create-order по просьбе клиента'],
  who_deadline: ['create-order, at the deadline', 'create-order по сроку'],
  gap_clocks: ['{gap}: the clocks of two services differ', '{gap}: часы двух сервисов расходятся'],
  undone_by: ['Taken back by RELEASED after {gap}.', 'Снят (RELEASED) через {gap}.'],
  undoes: ['Takes RESERVED back, because of CANCELLED ({why}).', 'Снимает RESERVED из-за CANCELLED ({why}).'],

  next: ['What happens next', 'Что дальше'],
  next_answer: ['The store reserves the stock or refuses.', 'Склад зарезервирует товар или откажет.'],
  next_release: ['The store gives the stock back (RELEASED).', 'Склад вернёт товар (RELEASED).'],
  next_placing: ['PLACED of create-order has not been read yet.', 'PLACED от create-order ещё не получено.'],
  next_shipping: ['Nothing, unless the order is cancelled. Its stock is held.', 'Ничего, пока заказ не отменят. Товар в резерве.'],
  next_over: ['Nothing. The order is over and holds no stock.', 'Ничего. Заказ завершён, резерва нет.'],
  waits_since: ['For {gap} so far.', 'Уже {gap}.'],
  deadline_left: ['Time until the deadline', 'Время до срока'],
  deadline_in: ['The deadline cancels the order in {gap}.', 'Заказ отменится по сроку через {gap}.'],
  deadline_over: ['The deadline passed {gap} ago. create-order cancels the order as soon as it runs.', 'Срок прошёл {gap} назад. create-order отменит заказ, как только заработает.'],
  deadline_default: ['{n} s after placing, unless configured otherwise.', '{n} с после размещения, если не настроено иначе.'],

  cancel: ['Cancel order', 'Отменить заказ'],
  cancel_ask: ['Cancel order {id}? This cannot be undone.', 'Отменить заказ {id}? Вернуть его будет нельзя.'],
  cancel_yes: ['Yes, cancel', 'Да, отменить'],
  cancel_no: ['Keep it', 'Оставить'],
  cancel_frozen: ['This page does not update until you choose.', 'Пока вы решаете, страница не обновляется.'],
  cancel_changed: ['The order has changed since.', 'Заказ с тех пор изменился.'],
  cancel_sent: ['Accepted {gap} after the click.', 'Принято через {gap} после нажатия.'],
  cancel_heard: ['{fact} seen here {gap} after the click', '{fact} здесь через {gap} после нажатия'],
  cancel_waits: ['Waiting …', 'Ожидание …'],
  cancel_over: ['The order was over before.', 'Заказ был завершён раньше.'],

  details: ['Details', 'Подробности'],
  copy: ['Copy as', 'Скопировать:'],
  copy_link: ['link', 'ссылку'],
  copied: ['Copied.', 'Скопировано.'],
  copy_self: ['Copy it from here:', 'Скопируйте отсюда:'],

  stuck_what: ['Stuck: no answer in time. Late: perhaps answered, and this service has not read it yet.', 'Застрял: нет ответа вовремя. Запоздал: ответ, возможно, есть, но этот сервис его ещё не прочёл.'],
  stuck_none: ['No order is stuck.', 'Ни один заказ не застрял.'],
  stuck_incomplete: ['The list may be incomplete.', 'Список может быть неполным.'],
  is_stuck: ['stuck', 'застрял'],
  is_late: ['late', 'запоздал'],
  waits_on: ['Waits for', 'Ждёт'],
  wait_ANSWER: ['the store: its answer', 'склад: ответ'],
  wait_RELEASE: ['the store: RELEASED', 'склад: RELEASED'],
  wait_PLACING: ['create-order: PLACED', 'create-order: PLACED'],
  ends: ['What ends it', 'Что закончит'],
  ends_ANSWER: ['the store, or the deadline in {gap}', 'склад или срок через {gap}'],
  ends_ANSWER_over: ['the store, or the deadline, {gap} overdue', 'склад или срок, просроченный на {gap}'],
  ends_RELEASE: ['the store, when it reads the cancellation', 'склад, когда прочтёт отмену'],
  ends_PLACING: ['PLACED, when it is read', 'PLACED, когда будет прочтён'],

  item_id: ['Item id', 'Номер товара'],
  name: ['Name', 'Название'],
  name_begins: ['Name begins with', 'Начало названия'],
  price: ['Price, minor units', 'Цена, коп.'],
  units: ['Units', 'Всего, шт.'],
  free: ['Free', 'Свободно'],
  reserved: ['Reserved', 'В резерве'],
  changed: ['Changed', 'Изменён'],
  reservations: ['Reservations', 'Резервы'],
  look_up: ['Look up', 'Посмотреть'],
  items_all: ['All items', 'Все товары'],
  items_no_list: ['This store lists no items. Look one up by its id.', 'Этот склад не перечисляет товары. Посмотрите по номеру.'],
  add: ['Add item', 'Добавить товар'],
  added: ['Item {id} is added.', 'Товар {id} добавлен.'],

  ms: ['{n} ms', '{n} мс'],
  s: ['{n} s', '{n} с'],
  min_s: ['{n} min {m} s', '{n} мин {m} с'],
  h_min: ['{n} h {m} min', '{n} ч {m} мин'],
  d_h: ['{n} d {m} h', '{n} д {m} ч'],
};

const stored = () => {
  try {
    return localStorage.getItem('language');
  } catch {
    return null; // Storage is blocked.
  }
};
const wanted = [stored(), ...navigator.languages.map((tag) => tag.slice(0, 2))];

export let language = wanted.find((tag) => LANGUAGES.includes(tag)) ?? 'en';

export function switchLanguage() {
  language = LANGUAGES[1 - LANGUAGES.indexOf(language)];
  try {
    localStorage.setItem('language', language);
  } catch {
    // As above.
  }
}

/** What a newer service says stays as it is. */
const word = (key) => WORDS[key]?.[LANGUAGES.indexOf(language)] ?? key;

/** The text, with values in their places. */
export const t = (key, values = {}) => word(key).replace(/\{(\w+)\}/g, (_, name) => values[name]);

/** The same for values that are templates. */
export const mix = (key, values) => word(key).split(/\{(\w+)\}/).map((part, i) => (i % 2 ? values[part] : part));
