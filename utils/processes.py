"""Several processes that train one model, as torchrun starts them. Where it started none, one process is the team."""

from torch import distributed
from torch.nn.parallel import DistributedDataParallel


class Team:
    """The processes that train one model: each has its share of every batch, gradients and figures are those of all."""

    def __init__(self):
        together = distributed.is_initialized()
        self.rank, self.size = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)

    def from_first(self, value):
        """What `value` is in the first process."""
        shared = [value]
        if self.size > 1:
            distributed.broadcast_object_list(shared)
        return shared[0]

    def from_all(self, value):
        """What `value` is in each process, by rank."""
        values = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return values

    def learner(self, model):
        """`model` for training: after a backward pass its gradients are those of the whole batch, in every process."""
        if self.size > 1:
            model = DistributedDataParallel(model)
            model.register_comm_hook(None, self.add_gradients)
        return model

    def add_gradients(self, _, bucket):
        """The gradient of a batch's mean loss is the sum of the shares', each times its part of the batch."""
        added = distributed.all_reduce(bucket.buffer().mul_(self.weight), async_op=True)
        return added.get_future().then(lambda future: future.value()[0])

    def shares(self, batches):
        """Of each batch every `size`-th review, from `rank` on; where none is left, one that weighs nothing."""
        self.taken = 0
        for words, labels in batches:
            count = len(labels[self.rank :: self.size])
            self.weight = count / len(labels)
            mine = slice(self.rank, None, self.size) if count else slice(1)
            self.taken += len(labels[mine])
            yield words[mine], labels[mine]

    def mean(self, *figures):
        """Means over the reviews of all, from means over those that this process took in its last `shares`."""
        if self.size == 1:
            return figures
        count, *sums = map(sum, zip(*self.from_all([self.taken, *(self.taken * figure for figure in figures)])))
        return [total / count for total in sums]
