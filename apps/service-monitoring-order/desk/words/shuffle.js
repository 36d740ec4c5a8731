// The texts of an order's facts that are told in any order.

export const SHUFFLE_WORDS = {
  shuffle: ['Any order, same status', 'В любом порядке тот же статус'],
  shuffle_what: ['Events may come in any order, and more than once. Try it with the facts of this order: the service folds them as it folds every status.', 'События приходят в любом порядке и не по одному разу. Попробуйте на событиях этого заказа: статус по ним вычислит сам сервис, как для любого заказа.'],
  shuffle_open: ['Shuffle the facts', 'Перемешать события'],
  shuffle_earlier: ['Earlier', 'Раньше'],
  shuffle_later: ['Later', 'Позже'],
  shuffle_again: ['Repeat', 'Повторить'],
  shuffle_out: ['Leave out', 'Убрать'],
  shuffle_back: ['Put {fact} back', 'Вернуть {fact}'],
  shuffle_reset: ['Start again', 'Сначала'],
  shuffle_same: ['The status of this order, all of it.', 'Тот же статус, что и у заказа, целиком.'],
  shuffle_other: ['Not the status of this order.', 'Не тот статус, что у заказа.'],
  shuffle_nothing: ['Nothing is known', 'Ничего не известно'],
  shuffle_left: ['A fact is left out: the status may be another, as it was before that fact came.', 'Одного события нет: статус может быть другим, как до его прихода.'],
  shuffle_tried: ['Orders tried: {all}; same status: {same}', 'Проверено порядков: {all}, статус тот же: {same}'],
  shuffle_many: ['Shuffle {n} times', 'Перемешать {n} раз'],
  shuffle_many_done: ['{orders} random orders with repetitions: {same} lead to this status; different statuses: {n}.', 'Случайных порядков с повторами: {orders}, привели к этому статусу: {same}, разных статусов: {n}.'],
};
