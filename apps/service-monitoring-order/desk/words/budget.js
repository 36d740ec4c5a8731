// The texts of what the page costs.

export const BUDGET_WORDS = {
  costs: ['CPU of the services for this page: {cpu} ms/s', 'Процессор сервисов на эту страницу: {cpu} мс/с'],
  costs_streams: ['{n} open streams together: {cpu} ms/s', 'Всего открыто потоков: {n}, вместе {cpu} мс/с'],
  slowed: ['Updates are {n} times slower, to spare the services', 'Чтобы не нагружать сервисы, обновления реже в {n} раз'],
};
